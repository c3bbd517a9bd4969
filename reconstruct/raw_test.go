package reconstruct

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/interop"
)

// holeyReader is a file in memory with holes of 4 KiB blocks.
type holeyReader struct {
	*bytes.Reader
	data []bool
	fail error
}

func (h holeyReader) next(off int64, data bool) (int64, error) {
	if off >= h.Size() {
		return 0, io.EOF
	}
	for i := off / 4096; i < int64(len(h.data)); i++ {
		if h.data[i] == data {
			return max(off, i*4096), h.fail
		}
	}
	if data {
		return 0, io.EOF
	}
	return h.Size(), h.fail
}

func (h holeyReader) NextData(off int64) (int64, error) { return h.next(off, true) }
func (h holeyReader) NextHole(off int64) (int64, error) { return h.next(off, false) }

func TestRaw(t *testing.T) {
	r := holeyReader{Reader: bytes.NewReader(make([]byte, 5*4096-100)), data: []bool{false, true, true, false, false}}
	for absent, kind := range map[bool]qcow2.Kind{false: qcow2.Zero, true: qcow2.Absent} {
		d := NewRaw(r, r.Size(), &RawOptions{HolesAbsent: absent})
		got := collect(t, d, 0, d.Size())
		if len(got) != 3 || got[0].Kind != kind || got[1].Kind != qcow2.Data || got[2].Kind != kind {
			t.Fatalf("%+v", got)
		}
		if got[0].Len != 4096 || got[1].End() != 3*4096 || got[2].End() != r.Size() {
			t.Errorf("%+v", got)
		}
		for _, e := range got {
			if e.HasHost != (e.Kind != qcow2.Absent) || e.HasHost && (int64(e.Host) != e.Off || e.Storage == nil) {
				t.Errorf("%+v", e)
			}
		}
		part := collect(t, d, 5000, 10000)
		if len(part) != 2 || part[0].Off != 5000 || part[1].End() != 15000 {
			t.Errorf("part: %+v", part)
		}
		readAll(t, d)
	}
	all := collect(t, NewRaw(bytes.NewReader(make([]byte, 100)), 100, nil), 0, 100)
	if len(all) != 1 || all[0].Kind != qcow2.Data || all[0].Len != 100 {
		t.Errorf("without holes: %+v", all)
	}
}

// A file that ends before its size is an error, not a hole.
func TestRawCut(t *testing.T) {
	r := holeyReader{Reader: bytes.NewReader(make([]byte, 8192)), data: []bool{true, false}}
	d := NewRaw(r, 16384, nil)
	if _, err := d.ReadAt(make([]byte, 4096), 6000); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ReadAt: %v", err)
	}
	if _, err := Copy(t.Context(), nil, d, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Copy: %v", err)
	}
	r.fail = errors.New("bad disk")
	if _, err := Copy(t.Context(), nil, NewRaw(r, 8192, nil), nil); !errors.Is(err, r.fail) {
		t.Errorf("Copy: %v", err)
	}
}

// sparseFile makes a file of 1 MiB and 7 bytes with data at the given offsets.
func sparseFile(t *testing.T, at ...int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(1<<20 + 7); err != nil {
		t.Fatal(err)
	}
	for _, off := range at {
		if _, err := f.WriteAt([]byte("data"), off); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestRawFile(t *testing.T) {
	f := sparseFile(t, 65536, 900000)
	d := NewRaw(f, 1<<20+7, nil)
	got := readAll(t, d)
	for e := range d.Extents(0, d.Size()) {
		if e.Kind != qcow2.Data && !allZero(got[e.Off:e.End()]) {
			t.Errorf("a hole with bytes in it: %+v", e)
		}
	}
	if err := f.Truncate(1 << 19); err != nil {
		t.Fatal(err)
	}
	if _, err := Copy(t.Context(), nil, d, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file that was cut: %v", err)
	}
}

// qemu-img map has the last word on holes.
func TestRawLikeQEMU(t *testing.T) {
	interop.Need(t, "qemu-img")
	f := sparseFile(t, 0, 65536, 900000)
	if err := f.Truncate(1 << 20); err != nil { // QEMU thinks in sectors
		t.Fatal(err)
	}
	type run struct {
		Start, Length, Offset int64
		Present, Zero, Data   bool
	}
	var want, got []run
	out := interop.Run(t, "qemu-img", "map", "--output=json", "-f", "raw", f.Name())
	if err := json.Unmarshal(out, &want); err != nil {
		t.Fatal(err)
	}
	for _, e := range collect(t, NewRaw(f, 1<<20, nil), 0, 1<<20) {
		got = append(got, run{e.Off, e.Len, int64(e.Host), e.HasHost, e.Kind == qcow2.Zero, e.Kind == qcow2.Data})
	}
	if len(got) != len(want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}
