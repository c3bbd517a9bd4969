package qcow2_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// A row is what a verdict says, in short.
type row struct {
	Off, Len int64
	Grade    qcow2.Grade
	Reason   qcow2.Reason
	Kind     qcow2.Kind
}

// rowsOf are the verdicts of an image, which must be readable without an error.
func rowsOf(t *testing.T, image []byte, opts qcow2.SalvageOptions) ([]row, []byte) {
	t.Helper()
	s, err := salvage(image, nil, nil, opts)
	if err != nil {
		t.Fatal(err)
	}
	list, disk, err := verdictsOf(s)
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	for _, v := range list {
		rows = append(rows, row{v.Off, v.Len, v.Grade, v.Reason, v.Kind})
	}
	return rows, disk
}

func wantRows(t *testing.T, image []byte, opts qcow2.SalvageOptions, want ...row) []byte {
	t.Helper()
	rows, disk := rowsOf(t, image, opts)
	if d := cmp.Diff(want, rows); d != "" {
		t.Errorf("verdicts (-want +got):\n%s", d)
	}
	return disk
}

// eight is an image of eight clusters of 512 bytes, all of them data.
func eight(more ...func(*build.Spec)) *build.Image {
	spec := build.Spec{Size: 8 * 512, Clusters: map[uint64]build.Cluster{}}
	for i := range uint64(8) {
		spec.Clusters[i] = build.Cluster{Form: build.Normal}
	}
	for _, f := range more {
		f(&spec)
	}
	return build.Must(spec)
}

const unit = 512

// TestSalvageEntries breaks one L2 entry in each way.
func TestSalvageEntries(t *testing.T) {
	img := eight()
	good, entry := img.Field("l2[0][2]"), "l2[0][2]"
	other := img.Field("l2[0][5]")
	sound := func(off, n int64) row { return row{off * unit, n * unit, qcow2.Sound, "", qcow2.Data} }
	for _, c := range []struct {
		name  string
		value uint64
		grade qcow2.Grade
		why   qcow2.Reason
		kind  qcow2.Kind
		same  bool
	}{
		{"reserved bit", good | 1<<57, qcow2.Doubtful, qcow2.ReasonReserved, qcow2.Data, true},
		{"three reserved bits", good | 7<<57, qcow2.Lost, qcow2.ReasonEntry, qcow2.Zero, false},
		{"beyond the end", 1<<63 | 1<<15, qcow2.Lost, qcow2.ReasonBeyondEnd, qcow2.Zero, false},
		{"far beyond the end", 1<<63 | 1<<50, qcow2.Lost, qcow2.ReasonEntry, qcow2.Zero, false},
		{"the header", 1 << 63, qcow2.Lost, qcow2.ReasonEntry, qcow2.Zero, false},
		{"its own table", 1<<63 | uint64(img.At("l2[0]").Off), qcow2.Lost, qcow2.ReasonEntry, qcow2.Zero, false},
		{"a table", 1<<63 | uint64(img.At("l1").Off), qcow2.Doubtful, qcow2.ReasonOverlap, qcow2.Data, false},
		{"wiped", 0, qcow2.Doubtful, qcow2.ReasonWiped, qcow2.Absent, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := []row{sound(0, 2), {2 * unit, unit, c.grade, c.why, c.kind}, sound(3, 5)}
			disk := wantRows(t, img.Patch(entry, c.value), qcow2.SalvageOptions{}, want...)
			if got := bytes.Equal(disk, img.Disk.Bytes()); got != c.same {
				t.Errorf("the bytes are the same: %t", got)
			}
		})
	}
	wantRows(t, img.Patch(entry, other), qcow2.SalvageOptions{}, sound(0, 2), row{2 * unit, unit, qcow2.Doubtful, qcow2.ReasonShared, qcow2.Data},
		sound(3, 2), row{5 * unit, unit, qcow2.Doubtful, qcow2.ReasonShared, qcow2.Data}, sound(6, 2))
}

// TestSalvageRefcount doubts a cluster that counts as free, while others are counted; where
// all refcounts are lost they say nothing.
func TestSalvageRefcount(t *testing.T) {
	img := eight()
	b := bytes.Clone(img.Bytes)
	img.SetRefcount(b, uint64(img.At("data[2]").Off)/unit, 0)
	wantRows(t, b, qcow2.SalvageOptions{}, row{0, 2 * unit, qcow2.Sound, "", qcow2.Data},
		row{2 * unit, unit, qcow2.Doubtful, qcow2.ReasonRefcount, qcow2.Data}, row{3 * unit, 5 * unit, qcow2.Sound, "", qcow2.Data})
	block := img.At("refcount_block[0]")
	clear(b[block.Off:block.End()])
	wantRows(t, b, qcow2.SalvageOptions{}, row{0, 8 * unit, qcow2.Sound, "", qcow2.Data})
}

// TestSalvageL1Found has an L1 table that the header does not name any more: with the
// refcounts it is proven, and not without, or where a snapshot's could be it as well.
func TestSalvageL1Found(t *testing.T) {
	img := eight()
	lost := img.Patch("header.l1_table_offset", 0x1234)
	wantRows(t, lost, qcow2.SalvageOptions{}, row{0, 8 * unit, qcow2.Sound, "", qcow2.Data})
	block := img.At("refcount_block[0]")
	clear(lost[block.Off:block.End()])
	wantRows(t, lost, qcow2.SalvageOptions{}, row{0, 8 * unit, qcow2.Doubtful, qcow2.ReasonL1Found, qcow2.Data})

	img = eight(func(s *build.Spec) {
		s.Snapshots = []build.Snapshot{{ID: "1", Clusters: map[uint64]build.Cluster{0: {Form: build.Normal}, 1: {Form: build.Normal}}}}
	})
	rows, _ := rowsOf(t, img.PatchAll(map[string]uint64{"header.l1_table_offset": 0x1234, "header.nb_snapshots": 0}), qcow2.SalvageOptions{})
	if len(rows) == 0 || rows[0].Grade == qcow2.Sound {
		t.Errorf("two tables can be the L1 table, and %+v", rows)
	}
	rows, _ = rowsOf(t, img.Patch("header.l1_table_offset", uint64(img.At("snapshot[0].l1").Off)), qcow2.SalvageOptions{})
	for _, r := range rows {
		if r.Grade == qcow2.Sound {
			t.Errorf("the header names the L1 table of the snapshot, and %+v", r)
		}
	}
}

// TestSalvageFromSnapshot wipes the L1 table of an image with a snapshot that shares its
// tables, with zeros and with garbage.
func TestSalvageFromSnapshot(t *testing.T) {
	img := eight(func(s *build.Spec) { s.Snapshots = []build.Snapshot{{ID: "1", Name: "s", Copy: true}} })
	for _, value := range []uint64{0, 0x5a5a5a5a5a5a5a5a} {
		disk := wantRows(t, img.Patch("l1[0]", value), qcow2.SalvageOptions{}, row{0, 8 * unit, qcow2.Doubtful, qcow2.ReasonSnapshot, qcow2.Data})
		if !bytes.Equal(disk, img.Disk.Bytes()) {
			t.Errorf("L1 entry %#x: not the bytes of the snapshot", value)
		}
	}
	wantRows(t, img.Patch("l1[0]", 0x5a5a5a5a5a5a5a5a), qcow2.SalvageOptions{Snapshot: "s"}, row{0, 8 * unit, qcow2.Sound, "", qcow2.Data})
}

// TestSalvageOrphan lists an L2 table that was lost, and puts it back by hand.
func TestSalvageOrphan(t *testing.T) {
	img := eight()
	broken := img.Patch("l1[0]", 0)
	s, err := salvage(broken, nil, nil, qcow2.SalvageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var found []qcow2.Orphan
	for o, err := range s.Orphans(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, o)
	}
	host := qcow2.HostOffset(img.At("l2[0]").Off)
	if len(found) != 1 || found[0].Host != host || found[0].Entries != 8 || found[0].Unclaimed != 8 || found[0].Score() != 100 {
		t.Fatalf("orphans %+v", found)
	}
	disk := wantRows(t, broken, qcow2.SalvageOptions{Tables: map[int64]qcow2.HostOffset{0: host}},
		row{0, 8 * unit, qcow2.Doubtful, qcow2.ReasonAssigned, qcow2.Data})
	if !bytes.Equal(disk, img.Disk.Bytes()) {
		t.Error("not the bytes that the table leads to")
	}
}

// TestSalvageBelow has a link that lost a range above one that holds it.
func TestSalvageBelow(t *testing.T) {
	full, inc := eight(), eight(func(s *build.Spec) {
		s.Seed = 1
		for i := uint64(4); i < 8; i++ {
			delete(s.Clusters, i)
		}
	})
	below, err := salvage(full.Bytes, nil, nil, qcow2.SalvageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	broken := inc.Patch("l2[0][1]", 1<<63|1<<15)
	// What is lost leaks, so what is absent may have been wiped.
	rows := []row{
		{0, unit, qcow2.Sound, "", qcow2.Data}, {unit, unit, qcow2.Lost, qcow2.ReasonBeyondEnd, qcow2.Zero},
		{2 * unit, 2 * unit, qcow2.Sound, "", qcow2.Data}, {4 * unit, 4 * unit, qcow2.Doubtful, qcow2.ReasonWiped, qcow2.Data},
	}
	disk := wantRows(t, broken, qcow2.SalvageOptions{Below: below}, rows...)
	if !bytes.Equal(disk[4*unit:], full.Disk.Bytes()[4*unit:]) {
		t.Error("not the bytes below")
	}
	rows[1] = row{unit, unit, qcow2.Doubtful, qcow2.ReasonOlder, qcow2.Data}
	disk = wantRows(t, broken, qcow2.SalvageOptions{Below: below, Older: true}, rows...)
	if !bytes.Equal(disk[unit:2*unit], full.Disk.Bytes()[unit:2*unit]) {
		t.Error("not the older bytes")
	}
	rows[1] = row{unit, unit, qcow2.Lost, qcow2.ReasonBeyondEnd, qcow2.Zero}
	rows[3].Kind = qcow2.Absent
	wantRows(t, broken, qcow2.SalvageOptions{Link: true}, rows...)
}

// A badDevice fails to read some sectors.
type badDevice struct {
	b   []byte
	bad map[int64]bool // by offset
}

var errDevice = errors.New("input/output error")

func (d badDevice) ReadAt(p []byte, off int64) (int, error) {
	for at := off &^ 511; at < off+int64(len(p)); at += 512 {
		if d.bad[at] {
			return 0, errDevice
		}
	}
	return bytes.NewReader(d.b).ReadAt(p, off)
}

// TestSalvageBadDevice has sectors that cannot be read: of data, of a table, of a
// compressed cluster. Only what is in them is lost.
func TestSalvageBadDevice(t *testing.T) {
	img := build.Must(build.Spec{ClusterBits: 12, Size: 80 << 12, Clusters: map[uint64]build.Cluster{
		0: {Form: build.Normal}, 1: {Form: build.Packed, Content: bytes.Repeat([]byte("some text "), 410)[:4096]}, 70: {Form: build.Normal}}})
	data, table := img.At("data[0]").Off, img.At("l2[0]").Off
	d := badDevice{img.Bytes, map[int64]bool{data + 1024: true, table + 512: true}}
	s, err := qcow2.Salvage(context.Background(), d, int64(len(img.Bytes)), nil)
	if err != nil {
		t.Fatal(err)
	}
	list, disk, err := verdictsOf(s)
	if err != nil {
		t.Fatal(err)
	}
	var lost []row
	for _, v := range list {
		if v.Grade == qcow2.Lost {
			lost = append(lost, row{v.Off, v.Len, v.Grade, v.Reason, v.Kind})
		} else if !bytes.Equal(disk[v.Off:v.End()], img.Disk.Bytes()[v.Off:v.End()]) {
			t.Errorf("%+v: other bytes", v)
		}
	}
	want := []row{{1024, 512, qcow2.Lost, qcow2.ReasonUnreadable, qcow2.Zero}, {64 << 12, 16 << 12, qcow2.Lost, qcow2.ReasonUnreadable, qcow2.Zero}}
	if d := cmp.Diff(want, lost); d != "" {
		t.Errorf("lost (-want +got):\n%s", d)
	}
}

// TestSalvageBrokenStream gives the beginning of a compressed cluster whose stream breaks
// off, and doubts one that goes on where its cluster ends.
func TestSalvageBrokenStream(t *testing.T) {
	content := make([]byte, 64<<10)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range content {
		content[i] = byte(rng.Uint32()) & 15
	}
	img := build.Must(build.Spec{ClusterBits: 16, Size: 1 << 16, Clusters: map[uint64]build.Cluster{0: {Form: build.Packed, Content: content}}})
	p := img.At("packed[0]")
	rows, disk := rowsOf(t, img.Cut(p.Off+p.Len/2), qcow2.SalvageOptions{})
	if len(rows) != 2 || rows[0].Reason != qcow2.ReasonCutStream || rows[1].Reason != qcow2.ReasonStream || rows[0].Len%512 != 0 {
		t.Fatalf("verdicts %+v", rows)
	}
	if n := rows[0].Len; n < 16<<10 || !bytes.Equal(disk[:n], content[:n]) {
		t.Errorf("not the bytes before the break: the first other is at %d of %d", firstDifference(disk, content), n)
	}
	b := bytes.Clone(img.Bytes)
	for i := p.Off + p.Len/2; i < p.End(); i++ {
		b[i] = 0xff
	}
	wantRows(t, b, qcow2.SalvageOptions{}, row{0, 64 << 10, qcow2.Doubtful, qcow2.ReasonStreamEnd, qcow2.Compressed})
}

// TestSalvageHostile salvages images that claim much: all L1 entries name one table, or
// tables far apart in a sparse file.
func TestSalvageHostile(t *testing.T) {
	img := build.Must(build.Spec{ClusterBits: 16, Size: 1 << 40, Clusters: map[uint64]build.Cluster{0: {}, 1 << 20: {Form: build.Normal}}})
	b := bytes.Clone(img.Bytes)
	l1 := img.At("l1")
	for i := l1.Off; i < l1.End(); i += 8 {
		binary.BigEndian.PutUint64(b[i:], img.Field("l1[128]"))
	}
	s, err := qcow2.Salvage(context.Background(), bytes.NewReader(b), int64(len(b)), nil)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for v, err := range s.Verdicts(0, s.Size()) {
		if n++; err != nil || v.Grade == qcow2.Sound {
			t.Fatalf("%+v: %v", v, err)
		}
	}
	if n != 1 {
		t.Errorf("%d verdicts", n)
	}
}

// TestSalvageNothing gives files in which there is nothing.
func TestSalvageNothing(t *testing.T) {
	for _, b := range [][]byte{nil, []byte("QFI\xfb"), bytes.Repeat([]byte("text"), 5000), make([]byte, 1<<20)} {
		if _, err := salvage(b, nil, nil, qcow2.SalvageOptions{}); !errors.Is(err, qcow2.ErrNotQcow2) {
			t.Errorf("%d bytes: %v", len(b), err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := qcow2.Salvage(ctx, bytes.NewReader(make([]byte, 4096)), 4096, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

var _ io.ReaderAt = badDevice{}
