package qcow2_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/crash"
)

// refs opens the files that built images name.
func refs(data, backing []byte) *qcow2.Options {
	return &qcow2.Options{OpenRef: func(ref qcow2.Ref) (qcow2.Disk, error) {
		switch {
		case ref.Kind == qcow2.RefData && data != nil:
			return memDisk(data), nil
		case ref.Kind == qcow2.RefBacking && backing != nil:
			return memDisk(backing), nil
		}
		return nil, nil
	}}
}

func planRepair(image, data []byte, mode qcow2.RepairMode) (*qcow2.Repair, error) {
	return qcow2.PlanRepair(context.Background(), bytes.NewReader(image), int64(len(image)), refs(data, nil),
		qcow2.RepairOptions{Mode: mode})
}

// repaired is the image after a repair.
func repaired(t *testing.T, p *qcow2.Repair, image []byte) []byte {
	t.Helper()
	f := crash.New(image)
	if err := p.Apply(f); err != nil {
		t.Fatalf("apply: %v", err)
	}
	return f.Bytes()
}

// A view is what can be read of all disks of an image, sector by sector; nil where a
// sector cannot be read.
func readable(image, data []byte) map[string][][]byte {
	views := map[string][][]byte{}
	img, err := openBuilt(image, data, nil)
	if err != nil {
		return views
	}
	views[""] = sectors(img)
	list, _ := img.Snapshots()
	for i, s := range list {
		if d, err := img.SnapshotDisk(s.ID); err == nil {
			views[fmt.Sprint(i, s.ID)] = sectors(d)
		}
	}
	return views
}

func sectors(d qcow2.Disk) [][]byte {
	var all [][]byte
	for off := int64(0); off < min(d.Size(), 4<<20); off += 512 {
		b := make([]byte, min(512, d.Size()-off))
		if _, err := d.ReadAt(b, off); err != nil {
			b = nil
		}
		all = append(all, b)
	}
	return all
}

// sameGuest wants every byte that could be read before to be the same.
func sameGuest(before, after map[string][][]byte) error {
	for view, sectors := range before {
		now := after[view]
		for i, b := range sectors {
			if b == nil {
				continue
			}
			if i >= len(now) || !bytes.Equal(b, now[i]) {
				return fmt.Errorf("disk %q: sector %d is not what it was", view, i)
			}
		}
	}
	return nil
}

// TestRepairAll repairs random corruptions: nothing is wrong any more, and what could be
// read before is the same; qemu-img check agrees; Undo gives the old image back.
func TestRepairAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	count := map[string]int{}
	for seed := range seeds() / 4 {
		s := build.Random(seed)
		broken := corrupt(s.Image, seed)
		what, err := repairOnce(t, dir, &s, broken)
		count[what]++
		if err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
	t.Logf("%v", count)
}

func repairOnce(t *testing.T, dir string, s *build.Sound, broken []byte) (string, error) {
	t.Helper()
	before := readable(broken, s.Data)
	p, err := planRepair(broken, s.Data, qcow2.RepairAll)
	switch {
	case errors.Is(err, qcow2.ErrCannotRepair):
		return "cannot", nil
	case errors.Is(err, qcow2.ErrNotQcow2), errors.As(err, new(*qcow2.UnsupportedError)), errors.As(err, new(*qcow2.FormatError)):
		if _, openErr := openBuilt(broken, s.Data, nil); openErr != nil {
			return "no image", nil
		}
		return "", fmt.Errorf("plan: %w", err)
	case err != nil:
		return "", fmt.Errorf("plan: %w", err)
	}
	fixed := repaired(t, p, broken)
	if err := sameGuest(before, readable(fixed, s.Data)); err != nil {
		return "", fmt.Errorf("%w\n%v", err, p.Done)
	}
	if err := undone(p, broken, fixed); err != nil {
		return "", err
	}
	if len(p.Left) > 0 {
		kind := "left " + string(p.Left[0].Kind)
		if p.Left[0].Kind != qcow2.FindSnapshotExtra { // what its bytes mean is not known
			return kind, fmt.Errorf("left: %v\n%v", p.Left, p.Done)
		}
		return kind, nil
	}
	if err := qemuFindsNothing(t, dir, s, fixed); err != nil {
		return "", fmt.Errorf("%w\n%v", err, p.Done)
	}
	return "mended", nil
}

// qemuFindsNothing wants qemu-img check to be clean, where it opens the image at all.
func qemuFindsNothing(t *testing.T, dir string, s *build.Sound, image []byte) error {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil && os.Getenv("QBIT_REQUIRE_INTEROP") != "1" {
		return nil
	}
	path := writeImage(t, dir, &s.Spec, image, s.Data)
	if r := qemuCheck(t, path); r.Status > 1 || r.Corruptions+r.Leaks > 0 {
		return fmt.Errorf("qemu-img check: status %d: %s", r.Status, r.text)
	}
	return nil
}

// undone takes a repair back by its journal.
func undone(p *qcow2.Repair, broken, fixed []byte) error {
	var b bytes.Buffer
	if err := p.WriteJournal(&b, "image"); err != nil {
		return err
	}
	j, err := qcow2.ReadJournal(&b)
	if err != nil {
		return err
	}
	f := crash.New(fixed)
	if err := j.Undo(f, f.Size()); err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	if !bytes.Equal(f.Bytes(), broken) {
		return errors.New("undo does not give the old image back")
	}
	return nil
}

// TestRepairBitmaps drops or mends broken bitmaps: QEMU opens the image, the guest's
// data is the same, and nothing is wrong any more.
func TestRepairBitmaps(t *testing.T) {
	dir := t.TempDir()
	for _, r := range build.Recipes() {
		if r.When != build.WhenBitmaps || len(r.Image) > 1<<20 {
			continue
		}
		p, err := planRepair(r.Image, r.Data, qcow2.RepairBitmaps)
		if err != nil {
			t.Errorf("%s: %v", r.Name, err)
			continue
		}
		fixed := repaired(t, p, r.Image)
		if err := sameGuest(readable(r.Image, r.Data), readable(fixed, r.Data)); err != nil {
			t.Errorf("%s: %v", r.Name, err)
		}
		if len(p.Left) > 0 || p.After.Leaks > p.Before.Leaks {
			t.Errorf("%s: left %v, done %v, %+v", r.Name, p.Left, p.Done, p.After)
		}
		if err := undone(p, r.Image, fixed); err != nil {
			t.Errorf("%s: %v", r.Name, err)
		}
		if _, err := exec.LookPath("qemu-img"); err == nil && r.Data == nil {
			path := writeImage(t, dir, nil, fixed, nil)
			if q := qemuCheck(t, path); q.Status != 0 {
				t.Errorf("%s: qemu-img check has status %d: %s", r.Name, q.Status, q.text)
			}
		}
	}
}

// TestRepairKeepsSoundBitmaps drops the broken one of two bitmaps.
func TestRepairKeepsSoundBitmaps(t *testing.T) {
	img := build.Must(build.Spec{Size: 64 * 512, Clusters: map[uint64]build.Cluster{0: {Form: build.Normal}},
		Bitmaps: []build.Bitmap{{Name: "good", Dirty: []build.Range{{Off: 512, Len: 512}}}, {Name: "bad"}}})
	broken := img.Patch("bitmap[1].flags", 1<<20)
	p, err := planRepair(broken, nil, qcow2.RepairBitmaps)
	if err != nil {
		t.Fatal(err)
	}
	fixed, err := openBuilt(repaired(t, p, broken), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	list, err := fixed.Bitmaps()
	if err != nil || len(list) != 1 || list[0].Name != "good" {
		t.Fatalf("%v, %v", list, err)
	}
	if b, err := fixed.LoadBitmap("good"); err != nil || !b.Test(512) || b.Count() != 512 {
		t.Fatalf("the good bitmap: %v", err)
	}
}

// TestRepairLeaks gives back clusters, and changes nothing else.
func TestRepairLeaks(t *testing.T) {
	img := build.Must(build.Spec{Size: 64 * 512, Clusters: map[uint64]build.Cluster{0: {Form: build.Normal}, 5: {Form: build.Normal}}})
	block := img.At("refcount_block[0]").Off
	broken := bytes.Clone(img.Bytes)
	broken = append(broken, make([]byte, 1024)...)
	last := int64(len(broken))/512 - 1
	broken[block+last*2+1], broken[block+last*2-1] = 1, 3
	p, err := planRepair(broken, nil, qcow2.RepairLeaks)
	if err != nil || !p.After.Clean() || p.Before.Leaks != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	f := crash.New(broken)
	if err := p.Apply(f); err != nil {
		t.Fatal(err)
	}
	f.States(nil, func(s *crash.State) bool {
		if res, all := checkBytes(t, s.Bytes(), nil, nil); res.Corruptions > 0 {
			t.Errorf("%v: %v", s, all)
		}
		return true
	})
	if len(p.Phases) != 1 || len(p.Phases[0].Changes) != 1 {
		t.Fatalf("more than one sector changes: %+v", p.Phases)
	}
	if _, err := planRepair(img.Patch("l1[0]", 0x10000000), nil, qcow2.RepairLeaks); !errors.Is(err, qcow2.ErrCannotRepair) {
		t.Fatalf("clusters that a broken reference may lead to were given up: %v", err)
	}
}

// TestRepairCrash cuts the power at every moment of a repair: what could be read before
// can be read in every state, and the repair can be begun again.
func TestRepairCrash(t *testing.T) {
	t.Parallel()
	states := 0
	for seed := range seeds() / 8 {
		s := build.Random(seed)
		if len(s.Bytes) > 100<<10 {
			continue
		}
		broken := corrupt(s.Image, seed)
		p, err := planRepair(broken, s.Data, qcow2.RepairAll)
		if err != nil || len(p.Phases) == 0 {
			continue
		}
		f := crash.New(broken)
		if err := p.Apply(f); err != nil {
			t.Fatal(err)
		}
		before, low := readable(broken, s.Data), lowCounts(t, &s, broken)
		count := f.States(&crash.Options{Random: 2, Max: 100}, func(state *crash.State) bool {
			if err := soundState(t, &s, state.Bytes(), before, low); err != nil {
				t.Errorf("seed %d, %v: %v\n%v", seed, state, err, p.Done)
				return false
			}
			return true
		})
		states += count.States
	}
	t.Logf("%d states", states)
}

// lowCounts are the clusters in use that count as less used than they are.
func lowCounts(t *testing.T, s *build.Sound, image []byte) map[qcow2.HostOffset]bool {
	low := map[qcow2.HostOffset]bool{}
	_, all, err := tryCheck(image, s.Data, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.Kind == qcow2.FindRefcountLow {
			for i := range f.Clusters {
				low[f.Cluster+qcow2.HostOffset(i<<s.Spec.ClusterBits)] = true
			}
		}
	}
	return low
}

func soundState(t *testing.T, s *build.Sound, image []byte, before map[string][][]byte, low map[qcow2.HostOffset]bool) error {
	if err := sameGuest(before, readable(image, s.Data)); err != nil {
		return err
	}
	for cluster := range lowCounts(t, s, image) {
		if !low[cluster] {
			return fmt.Errorf("the refcount of the cluster at %v is too low, and was not before", cluster)
		}
	}
	p, err := planRepair(image, s.Data, qcow2.RepairAll)
	if err != nil {
		return fmt.Errorf("repairing again: %w", err)
	}
	for _, f := range p.Left {
		if f.Kind != qcow2.FindBeyondEnd {
			return fmt.Errorf("repairing again leaves %v", f)
		}
	}
	return nil
}

// shared are images in which clusters have two uses, and what is read of them is the
// same before and after.
func shared() map[string][]byte {
	img := build.Must(build.Spec{Size: 300 * 512, Clusters: map[uint64]build.Cluster{
		0: {Form: build.Normal}, 1: {Form: build.Normal}, 2: {Form: build.Packed}, 100: {Form: build.Normal}, 3: {Form: build.ZeroPrealloc},
	}})
	narrow := build.Must(build.Spec{Size: 30 * 512, RefcountBits: 1, Clusters: map[uint64]build.Cluster{
		0: {Form: build.Normal}, 1: {Form: build.Normal}, 2: {Form: build.Packed, Gap: 100},
	}})
	snapshot := build.Must(build.Spec{Size: 300 * 512, Clusters: map[uint64]build.Cluster{0: {Form: build.Normal}, 70: {Form: build.Normal}},
		Snapshots: []build.Snapshot{{ID: "1", Name: "one", Copy: true}}})
	oneBit := build.Must(build.Spec{Size: 200 * 512, RefcountBits: 1, Clusters: map[uint64]build.Cluster{0: {Form: build.Normal}}})
	word := func(img *build.Image, place string) uint64 {
		return binary.BigEndian.Uint64(img.Bytes[img.At("%s", place).Off:])
	}
	entry := func(img *build.Image, k uint64) uint64 { return binary.BigEndian.Uint64(img.Bytes[img.Entry(k).Off:]) }
	data := func(img *build.Image, k, value uint64) []byte {
		b := bytes.Clone(img.Bytes)
		binary.BigEndian.PutUint64(b[img.Entry(k).Off:], value)
		return b
	}
	return map[string][]byte{
		"data in an L2 table":       data(img, 1, word(img, "l1[0]")),
		"data in the L1 table":      data(img, 100, uint64(img.At("l1").Off)|1<<63),
		"data in a refcount block":  data(img, 1, word(img, "refcount_table[0]")),
		"an L2 table in data":       img.Patch("l1[1]", entry(img, 100)),
		"a snapshot's L2 in data":   snapshot.Patch("snapshot[0].l1[0]", entry(snapshot, 70)),
		"two of one bit":            data(narrow, 1, entry(narrow, 0)),
		"two compressed of one bit": data(narrow, 1, entry(narrow, 2)),
		"no refcount block":         img.Patch("refcount_table[0]", 0),
		"refcount block unaligned":  img.Patch("refcount_table[0]", 0x12345600),
		"shared, and a bad block":   snapshot.Patch("refcount_table[0]", 0x12345600),
		"no refcount table":         img.Patch("header.refcount_table_clusters", 0),
		"lost L2 tables":            img.PatchAll(map[string]uint64{"l1[1]": 1 << 40, "l1[2]": 1 << 41, "l1[3]": 0x1234}),
		"lost L2 tables of one bit": oneBit.PatchAll(map[string]uint64{"l1[1]": 1 << 40, "l1[2]": 1 << 41}),
	}
}

// TestRepairShared gives everybody a cluster of his own, in every crash state.
func TestRepairShared(t *testing.T) {
	for name, broken := range shared() {
		t.Run(name, func(t *testing.T) {
			p, err := planRepair(broken, nil, qcow2.RepairAll)
			if err != nil || len(p.Left) > 0 || !p.After.Clean() || p.Before.Clean() {
				t.Fatalf("%v: %+v", err, p)
			}
			f := crash.New(broken)
			if err := p.Apply(f); err != nil {
				t.Fatal(err)
			}
			before, none := readable(broken, nil), &build.Sound{Image: &build.Image{Spec: build.Spec{ClusterBits: 9}}}
			if before[""][0] == nil {
				t.Fatal("nothing can be read before")
			}
			low := lowCounts(t, none, broken)
			f.States(&crash.Options{Random: 2}, func(state *crash.State) bool {
				if err := soundState(t, none, state.Bytes(), before, low); err != nil {
					t.Errorf("%v: %v\n%v", state, err, p.Done)
				}
				return !t.Failed()
			})
			if err := undone(p, broken, f.Bytes()); err != nil {
				t.Error(err)
			}
			if err := qemuFindsNothing(t, t.TempDir(), none, f.Bytes()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestUndoInterrupted takes back a repair that a power cut interrupted, and an Undo.
func TestUndoInterrupted(t *testing.T) {
	broken := shared()["an L2 table in data"]
	p, err := planRepair(broken, nil, qcow2.RepairAll)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := p.WriteJournal(&text, "image"); err != nil {
		t.Fatal(err)
	}
	j, err := qcow2.ReadJournal(&text)
	if err != nil {
		t.Fatal(err)
	}
	f := crash.New(broken)
	if err := p.Apply(f); err != nil {
		t.Fatal(err)
	}
	if err := j.Undo(f, f.Size()); err != nil {
		t.Fatal(err)
	}
	f.States(&crash.Options{Random: 1}, func(state *crash.State) bool {
		again := state.File()
		if err := j.Undo(again, again.Size()); err != nil || !bytes.Equal(again.Bytes(), broken) {
			t.Errorf("%v: %v", state, err)
		}
		return !t.Failed()
	})
}

// TestRepairRefuses changes nothing where the image is not what was planned on.
func TestRepairRefuses(t *testing.T) {
	broken := shared()["data in an L2 table"]
	p, err := planRepair(broken, nil, qcow2.RepairAll)
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Clone(broken)
	other[p.Phases[len(p.Phases)-1].Changes[0].Offset+3] ^= 1
	f := crash.New(other)
	if err := p.Apply(f); !errors.Is(err, qcow2.ErrChanged) || !bytes.Equal(f.Bytes(), other) {
		t.Fatalf("error is %v", err)
	}
	if _, err := qcow2.PlanRepair(context.Background(), bytes.NewReader(broken), int64(len(broken)), nil,
		qcow2.RepairOptions{Mode: qcow2.RepairAll, Memory: 512}); err == nil {
		t.Fatal("a repair of several sectors in 512 bytes of memory")
	}
}
