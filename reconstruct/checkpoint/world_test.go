package checkpoint_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/checkpoint"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/crash"
)

// A world is a domain with disks, its checkpoints, and the truth about what changed
// since each of them. It does what a guest and libvirt would do.
type world struct {
	disks   []*worldDisk
	docs    store
	current string
	older   bool // libvirt is of the older design
	serial  int
}

type worldDisk struct {
	target string
	layers []*crash.File             // the topmost first
	truth  map[string]*bitmap.Bitmap // since each checkpoint
}

// A store keeps documents in memory.
type store struct {
	byName map[string]*libvirt.Checkpoint
	gate   func() error // asked before each change
}

func (s *store) Put(cp *libvirt.Checkpoint) error {
	if err := s.gate(); err != nil {
		return err
	}
	s.byName[cp.ResolvedName()] = cp
	return nil
}

func (s *store) Remove(name string) error {
	if err := s.gate(); err != nil {
		return err
	}
	delete(s.byName, name)
	return nil
}

const worldSize = 16 * granule

func newWorld(disks int) *world {
	w := &world{docs: store{byName: map[string]*libvirt.Checkpoint{}, gate: func() error { return nil }}}
	for i := range disks {
		made := build.Must(build.Spec{Size: worldSize, ClusterBits: 9})
		w.disks = append(w.disks, &worldDisk{target: fmt.Sprintf("vd%c", 'a'+i), layers: []*crash.File{crash.New(made.Bytes)},
			truth: map[string]*bitmap.Bitmap{}})
	}
	return w
}

// clone is a copy that records operations anew.
func (w *world) clone() *world {
	c := *w
	c.disks = nil
	for _, d := range w.disks {
		copied := &worldDisk{target: d.target, truth: map[string]*bitmap.Bitmap{}}
		for _, f := range d.layers {
			copied.layers = append(copied.layers, crash.New(f.Bytes()))
		}
		for name, b := range d.truth {
			copied.truth[name] = b.Clone()
		}
		c.disks = append(c.disks, copied)
	}
	c.docs = store{byName: maps.Clone(w.docs.byName), gate: func() error { return nil }}
	return &c
}

func open(f *crash.File) *qcow2.Image {
	img, err := qcow2.Open(f, f.Size(), nil)
	if err != nil {
		panic(err)
	}
	return img
}

func (d *worldDisk) disk() checkpoint.Disk {
	var images []*qcow2.Image
	for _, f := range d.layers {
		images = append(images, open(f))
	}
	return checkpoint.Disk{Target: d.target, Chain: checkpoint.NewChain(images)}
}

func (w *world) all() (disks []checkpoint.Disk) {
	for _, d := range w.disks {
		disks = append(disks, d.disk())
	}
	return disks
}

func (w *world) tree() *libvirt.Tree {
	tree, problems := libvirt.NewTree(slices.Collect(maps.Values(w.docs.byName)))
	if len(problems) > 0 {
		panic(problems)
	}
	return tree
}

func (w *world) images(p checkpoint.Place) (*qcow2.Editor, error) {
	f := w.disks[p.Disk].layers[p.Layer]
	return qcow2.Edit(f, f.Size(), nil)
}

func update(f *crash.File, fn func(*qcow2.Tx) error) {
	e, err := qcow2.Edit(f, f.Size(), nil)
	if err == nil {
		err = e.Update(fn)
	}
	if err != nil {
		panic(err)
	}
}

// write is a guest that writes: all bitmaps of the topmost image that record say so.
func (d *worldDisk) write(off int64) {
	for _, b := range d.truth {
		b.Set(off, granule)
	}
	update(d.layers[0], func(tx *qcow2.Tx) error {
		list, err := tx.Bitmaps()
		for _, info := range list {
			if info.Auto && err == nil {
				var bits *bitmap.Bitmap
				if bits, err = tx.LoadBitmap(info.Name); err == nil {
					bits.Set(off, granule)
					err = tx.ReplaceBitmap(info.Name, bits)
				}
			}
		}
		return err
	})
}

// snapshot is an external snapshot as libvirt takes it.
func (d *worldDisk) snapshot() {
	made := build.Must(build.Spec{Size: worldSize, ClusterBits: 9, Backing: "below", BackingFormat: "qcow2"})
	top := crash.New(made.Bytes)
	list, err := open(d.layers[0]).Bitmaps()
	if err != nil {
		panic(err)
	}
	update(top, func(tx *qcow2.Tx) error {
		for _, info := range list {
			if bits, err := bitmap.New(worldSize, info.Granularity); err != nil || info.Auto && tx.AddBitmap(info.Name, bits, true) != nil {
				return errors.New("snapshot")
			}
		}
		return nil
	})
	d.layers = slices.Insert(d.layers, 0, top)
}

// libvirtCreates makes a checkpoint as libvirt does, of either design, on some of the disks.
func (w *world) libvirtCreates(rng *rand.Rand) {
	w.serial++
	name := fmt.Sprintf("c%d", w.serial)
	cp := &libvirt.Checkpoint{Name: name, Parent: w.current, CreationTime: int64(w.serial)}
	parts := rng.IntN(1<<len(w.disks)-1) + 1
	for i, d := range w.disks {
		has := parts>>i&1 == 1
		kind := "no"
		if has {
			kind = "bitmap"
			w.add(d, name)
		}
		cp.Disks = append(cp.Disks, libvirt.CheckpointDisk{Name: d.target, Checkpoint: kind, Size: -1})
	}
	w.docs.byName[name], w.current = cp, name
}

// add makes a bitmap that records, and in the older design has the one before it end.
func (w *world) add(d *worldDisk, name string) {
	bits, err := bitmap.New(worldSize, granule)
	if err != nil {
		panic(err)
	}
	d.truth[name] = bits
	update(d.layers[0], func(tx *qcow2.Tx) error {
		before := w.recordingBefore(d)
		if w.older && before != "" {
			if err := tx.SetBitmapAuto(before, false); err != nil {
				return err
			}
		}
		return tx.AddBitmap(name, bits.Clone(), true)
	})
}

// recordingBefore is the nearest ancestor of what comes next that records on the disk.
func (w *world) recordingBefore(d *worldDisk) string {
	img := open(d.layers[0])
	tree := w.tree()
	for at, ok := w.current, w.current != ""; ok; at, ok = tree.Parent(at) {
		if info, err := img.BitmapInfo(at); err == nil && info.Auto {
			return at
		}
	}
	return ""
}

// apply does a plan with qbit, on a world that was looked at before.
func (w *world) apply(plan *checkpoint.Plan) error {
	err := plan.Apply(w.all(), w.images, &w.docs)
	if current, unique := w.tree().Current(); unique {
		w.current = current.Name
	} else {
		w.current = ""
	}
	return err
}

// forget drops the truth about checkpoints that there are no more.
func (w *world) forget() {
	for _, d := range w.disks {
		for name := range d.truth {
			if w.docs.byName[name] == nil {
				delete(d.truth, name)
			}
		}
	}
}

// judge compares what the bitmaps say with the truth. exact wants every checkpoint to
// be known, and nothing too much; else too much, or an error, is good enough.
func (w *world) judge(t *testing.T, exact bool) {
	t.Helper()
	tree := w.tree()
	for _, d := range w.disks {
		disk := d.disk()
		for _, name := range tree.Names() {
			truth := d.truth[name]
			changes, err := disk.Chain.Since(tree, d.target, name)
			if err != nil {
				var rule *checkpoint.RuleError
				if part := errors.As(err, &rule) && rule.Rule == checkpoint.RulePart; exact && (!part || truth != nil) {
					t.Fatalf("%s since %s: %v", d.target, name, err)
				}
				continue
			}
			w.judgeBits(t, d, name, changes, exact)
		}
	}
}

func (w *world) judgeBits(t *testing.T, d *worldDisk, name string, changes *checkpoint.Changes, exact bool) {
	t.Helper()
	truth := d.truth[name]
	if truth == nil {
		t.Fatalf("%s has no part in %s, and that says %s", d.target, name, dirtyGranules(changes.Bitmap))
	}
	missed := truth.Clone()
	if err := missed.Difference(changes.Bitmap); err != nil {
		t.Fatal(err)
	}
	if missed.Count() > 0 {
		t.Fatalf("%s since %s: %s, misses %s", d.target, name, dirtyGranules(changes.Bitmap), dirtyGranules(missed))
	}
	if exact && !changes.Bitmap.Equal(truth) {
		t.Fatalf("%s since %s: %s, the truth is %s", d.target, name, dirtyGranules(changes.Bitmap), dirtyGranules(truth))
	}
}

// compared is what Compare finds but notices.
func (w *world) compared() (kinds []checkpoint.ProblemKind) {
	for _, p := range checkpoint.Compare(w.all(), w.tree(), nil, true) {
		if !p.Notice() {
			kinds = append(kinds, p.Kind)
		}
	}
	return kinds
}

// create is a new checkpoint made by qbit.
func (w *world) create(name string) (*checkpoint.Plan, error) {
	cp := &libvirt.Checkpoint{Name: name, Parent: w.current, CreationTime: 1}
	var domain []libvirt.DomainDisk
	for _, d := range w.disks {
		domain = append(domain, libvirt.DomainDisk{Target: d.target, Source: "/" + d.target})
	}
	if err := cp.Align(domain); err != nil {
		return nil, err
	}
	return checkpoint.PlanCreate(w.all(), w.tree(), cp, granule)
}
