package fuzz

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/virtnbd"
	"github.com/qbitkit/qbit/testimages/streams"
)

const (
	// virtnbdMemory is what one input may make the reader allocate, freed or not,
	// besides what grows with the input. Four blocks of 4 MiB are kept.
	virtnbdMemory = 96 << 20
	// virtnbdRead is how much of a disk is read.
	virtnbdRead  = 8 << 20
	virtnbdPiece = 50000
)

// FuzzVirtnbd opens a stream of virtnbdbackup, walks, reads and verifies it.
// Properties: any input is opened or refused with an error that says why; extents
// cover the disk; Data lies within the file; where Verify finds nothing, everything
// can be read, in any pieces, with the same bytes; time and memory are bounded.
func FuzzVirtnbd(f *testing.F) {
	for _, file := range virtnbdSeeds() {
		f.Add(file, uint32(70000), uint16(9))
	}
	f.Fuzz(func(t *testing.T, file []byte, off uint32, n uint16) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		fuzzVirtnbd(t, file, int64(off), int64(n))
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > virtnbdMemory+64*uint64(len(file)) {
			t.Fatalf("%d bytes were allocated for a file of %d bytes", got, len(file))
		}
	})
}

func virtnbdSeeds() [][]byte {
	content := bytes.Repeat([]byte("some text that is not all alike 0123456789"), 3500)
	for i := range content {
		content[i] += byte(i / 1000)
	}
	size := int64(len(content))
	end := func(w *streams.Writer) []byte { w.Stop(); return w.Bytes() }
	plain := streams.New(streams.Meta{VirtualSize: 9000, DataSize: 1500, StreamVersion: 1})
	plain.Data(0, content[:500])
	plain.Zero(500, 700)
	plain.Data(4000, content[:1000])
	mixed := streams.New(streams.Meta{VirtualSize: 9000, DataSize: 1000, Incremental: true, ParentCheckpoint: "virtnbdbackup.0"})
	mixed.Zero(4000, 700)
	mixed.Data(0, content[:1000])
	seeds := [][]byte{end(plain), end(mixed), end(streams.New(streams.Meta{JSON: `{"virtual-size": "0", "compressed": 0, "stream-version": 2}`}))}
	for i, form := range []streams.Form{{}, {NoSize: true, NoBlockSum: true}, {Independent: true, NoContentSum: true}, {Stored: true, BlockBits: 18}} {
		w := streams.New(streams.Meta{VirtualSize: 2 * size, DataSize: size + 4000, Compressed: i})
		w.LZ4(1000, content[:4000], 0, form)
		w.LZ4(6000, content, 70000, form)
		w.Stop()
		w.Trailer()
		small := streams.New(streams.Meta{VirtualSize: 3000, DataSize: 2000, Compressed: i})
		small.LZ4(700, content[:2000], 900, form)
		small.Stop()
		small.Trailer()
		seeds = append(seeds, w.Bytes(), small.Bytes())
	}
	return seeds
}

func fuzzVirtnbd(t *testing.T, file []byte, off, n int64) {
	r, size := bytes.NewReader(file), int64(len(file))
	meta, metaErr := virtnbd.ReadMeta(r, size)
	s, err := virtnbd.Open(r, size, &virtnbd.Options{Memory: 1})
	if err != nil {
		namedVirtnbdError(t, err)
		return
	}
	if metaErr != nil || meta.VirtualSize != s.Size() || s.Size() < 0 {
		t.Fatalf("ReadMeta: %v, %+v, and Open: %+v", metaErr, meta, s.Meta())
	}
	if tally := s.Tally(); !tally.Stop || tally.StoredBytes > size {
		t.Fatalf("%+v", tally)
	}
	list, err := collect(s, 0, s.Size())
	contiguous(t, list, s.Size(), err)
	if err != nil {
		t.Fatal(err)
	}
	verified := s.Verify(context.Background(), nil)
	for _, e := range virtnbd.Findings(verified) {
		if int64(e.Host) > size {
			t.Fatalf("%v: beyond the end", e)
		}
	}
	if verified != nil && len(virtnbd.Findings(verified)) == 0 {
		t.Fatal(verified)
	}
	sound := readVirtnbd(t, s, list, size)
	if verified == nil && !sound {
		t.Fatal("Verify finds nothing, and some of the disk cannot be read")
	}
	if sound && s.Size() <= maxWhole {
		anyPieces(t, s, list, off, n)
	}
}

func namedVirtnbdError(t *testing.T, err error) {
	var format *virtnbd.FormatError
	var unsupported *qcow2.UnsupportedError
	if !errors.Is(err, virtnbd.ErrNotStream) && !errors.As(err, &format) && !errors.As(err, &unsupported) {
		t.Fatalf("not an error of the format: %v", err)
	}
}

// readVirtnbd reads what a stream holds, in pieces, and says whether it could.
func readVirtnbd(t *testing.T, s *virtnbd.Stream, list []qcow2.Extent, size int64) bool {
	p := make([]byte, virtnbdPiece)
	sound, read := true, int64(0)
	for _, e := range list {
		if e.Kind == qcow2.Data && (e.Len > size || e.Host > qcow2.HostOffset(size-e.Len)) {
			t.Fatalf("%+v lies outside of the file", e)
		}
		if e.Kind == qcow2.Absent || e.Kind == qcow2.Zero {
			continue
		}
		for off := e.Off; off < e.End() && read < virtnbdRead; off += virtnbdPiece {
			p := p[:min(virtnbdPiece, e.End()-off)]
			got, err := s.ReadAt(p, off)
			if err != nil {
				namedVirtnbdError(t, err)
				sound = false
			} else if got != len(p) {
				t.Fatalf("read of [%d, +%d): %d", off, len(p), got)
			}
			read += int64(len(p))
		}
	}
	return sound
}

// anyPieces reads a sound disk whole and in parts.
func anyPieces(t *testing.T, s *virtnbd.Stream, list []qcow2.Extent, off, n int64) {
	whole := junk(s.Size())
	if _, err := s.ReadAt(whole, 0); err != nil && err != io.EOF {
		t.Fatalf("what can be read in pieces cannot be read whole: %v", err)
	}
	contents(t, whole, list)
	off %= s.Size() + 1
	n = min(n, s.Size()-off)
	if n == 0 {
		return // no extents, and at the end io.EOF
	}
	partOfWalk(t, s, list, off, n)
	partOfRead(t, s, whole, off, n)
}
