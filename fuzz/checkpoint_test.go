package fuzz

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/checkpoint"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
	"github.com/qbitkit/qbit/testimages/build"
)

// A history is a domain in few bytes: what its images hold, and which documents there
// are. Most of what it can be no libvirt would have made.
type history struct {
	rest  []byte
	specs []build.Spec
	cps   []*libvirt.Checkpoint
}

func (h *history) next(n int) int {
	if len(h.rest) == 0 {
		return 0
	}
	b := h.rest[0]
	h.rest = h.rest[1:]
	return int(b) % n
}

// readHistory reads up to four images with up to six bitmaps each, and six documents.
func readHistory(b []byte) *history {
	h := &history{rest: b}
	for range 1 + h.next(4) {
		spec := build.Spec{Size: uint64(1+h.next(64)) << 9, ClusterBits: 9, StaleBitmaps: h.next(16) == 15}
		for name := range 6 {
			kind := h.next(8)
			if kind > 5 {
				continue
			}
			bm := build.Bitmap{Name: fmt.Sprint(name), Flags: []uint32{2, 2, 2, 0, 0, 3}[kind], GranularityBits: 9 + h.next(3)}
			for range h.next(4) {
				if off := int64(h.next(64)) << 9; off < int64(spec.Size) {
					bm.Dirty = append(bm.Dirty, build.Range{Off: off, Len: 1})
				}
			}
			spec.Bitmaps = append(spec.Bitmaps, bm)
		}
		if len(h.specs) > 0 {
			above := &h.specs[len(h.specs)-1]
			above.Backing, above.BackingFormat = "below", "qcow2"
		}
		h.specs = append(h.specs, spec)
	}
	for name := range 6 {
		cp := &libvirt.Checkpoint{Name: fmt.Sprint(name), CreationTime: 1}
		parent := h.next(10)
		switch {
		case parent == 9:
			continue
		case parent < 6 && parent != name:
			cp.Parent = fmt.Sprint(parent)
		}
		d := libvirt.CheckpointDisk{Name: "vda", Size: -1}
		switch h.next(8) {
		case 6:
			d.Checkpoint = "no"
		case 7:
			d.Bitmap = fmt.Sprint(h.next(6))
		}
		cp.Disks = append(cp.Disks, d)
		h.cps = append(h.cps, cp)
	}
	return h
}

// open builds the images; what cannot be one is passed over.
func (h *history) open() (images []*qcow2.Image, files []*file, ok bool) {
	for _, spec := range h.specs {
		made, err := spec.Build()
		if err != nil {
			return nil, nil, false
		}
		f := &file{made.Bytes}
		img, err := qcow2.Open(f, int64(len(f.b)), nil)
		if err != nil {
			return nil, nil, false
		}
		images, files = append(images, img), append(files, f)
	}
	return images, files, true
}

// A file is a file in memory.
type file struct{ b []byte }

func (f *file) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(f.b).ReadAt(p, off) }
func (f *file) Sync() error                             { return nil }

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if more := off + int64(len(p)) - int64(len(f.b)); more > 0 {
		f.b = append(f.b, make([]byte, more)...)
	}
	return copy(f.b[off:], p), nil
}

func (f *file) Truncate(size int64) error {
	f.b = append(slices.Clone(f.b), make([]byte, max(0, size-int64(len(f.b))))...)[:size]
	return nil
}

// documents are those of a history.
type documents map[string]*libvirt.Checkpoint

func (d documents) Put(cp *libvirt.Checkpoint) error {
	parsed, err := libvirt.ParseCheckpoint(cp.Append())
	d[cp.ResolvedName()] = parsed
	return err
}

func (d documents) Remove(name string) error {
	delete(d, name)
	return nil
}

func (d documents) tree() *libvirt.Tree {
	var all []*libvirt.Checkpoint
	for _, cp := range d {
		all = append(all, cp)
	}
	tree, _ := libvirt.NewTree(all)
	return tree
}

// FuzzCheckpoints changes checkpoints of any history. Whatever the bitmaps and documents
// are: what is told of a checkpoint holds all bitmaps that it names; and of those that a
// change leaves none says less than what it needed before, and none is known that was not.
func FuzzCheckpoints(f *testing.F) {
	f.Add([]byte{0, 32, 0, 0, 0, 2, 1, 2, 0, 0, 1, 1, 9, 7, 7, 7, 6, 0, 0, 0, 1, 0, 9, 9, 9, 1})
	f.Add([]byte{1, 63, 0, 3, 0, 1, 4, 3, 0, 1, 5, 0, 0, 1, 6, 7, 7, 7, 63, 0, 3, 1, 2, 3, 4, 6, 0, 0, 0, 1, 0, 2, 0, 9, 2, 2})
	f.Add(bytes.Repeat([]byte{1, 3, 0, 2}, 20))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 300 {
			return
		}
		h := readHistory(b)
		images, files, ok := h.open()
		if !ok {
			return
		}
		docs := documents{}
		for _, cp := range h.cps {
			docs[cp.Name] = cp
		}
		disks := []checkpoint.Disk{{Target: "vda", Chain: checkpoint.NewChain(images)}}
		before := told(t, disks[0], docs.tree())
		checkpoint.Compare(disks, docs.tree(), nil, true)
		domain := []libvirt.DomainDisk{{Target: "vda", Source: "/a"}}
		made, _ := checkpoint.Recover(disks, docs.tree(), domain, time.Unix(1, 0))
		for _, cp := range made {
			if err := cp.Validate(); err != nil {
				t.Fatal(err)
			}
		}
		h.change(t, disks, files, docs, before)
	})
}

// A known checkpoint is what is told of it, and what the bitmaps that it needs hold.
type known struct{ all, needed *bitmap.Bitmap }

// told is what is known of each checkpoint.
func told(t *testing.T, d checkpoint.Disk, tree *libvirt.Tree) map[string]known {
	t.Helper()
	all := map[string]known{}
	for _, name := range tree.Names() {
		changes, err := d.Chain.Since(tree, d.Target, name)
		var rule *checkpoint.RuleError
		if err != nil {
			if !errors.As(err, &rule) || rule.Checkpoint != name {
				t.Fatalf("%s: %v", name, err)
			}
			continue
		}
		needed, err := bitmap.New(changes.Bitmap.Size(), 512)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range changes.Parts {
			bits, err := d.Chain.Images()[p.Layer].LoadBitmap(p.Info.Name)
			if err != nil {
				t.Fatal(err)
			}
			if err := bits.Resize(changes.Bitmap.Size(), false); err != nil {
				t.Fatal(err)
			}
			wantSubset(t, name, bits, changes.Bitmap)
			if p.Needed && needed.Union(bits) != nil {
				t.Fatal(name)
			}
		}
		all[name] = known{changes.Bitmap, needed}
	}
	return all
}

func wantSubset(t *testing.T, what string, small, large *bitmap.Bitmap) {
	t.Helper()
	missing := small.Clone()
	if err := missing.Difference(large); err != nil {
		t.Fatal(err)
	}
	for r := range missing.Ranges() {
		if off, dirty := large.Next(r.Off); !dirty || off >= r.Off+r.Len || hasClean(large, r) {
			t.Fatalf("%s: %v is missing", what, r)
		}
	}
}

// hasClean says whether any byte of the range is clean.
func hasClean(b *bitmap.Bitmap, r bitmap.Range) bool {
	off, ok := b.NextClean(r.Off)
	return ok && off < r.Off+r.Len
}

// change deletes or merges what the rest of the bytes says.
func (h *history) change(t *testing.T, disks []checkpoint.Disk, files []*file, docs documents, before map[string]known) {
	t.Helper()
	tree := docs.tree()
	names := tree.Names()
	if len(names) == 0 {
		return
	}
	name := names[h.next(len(names))]
	below := tree.ChangedSince(name)
	var plan *checkpoint.Plan
	var err error
	into := ""
	switch h.next(4) {
	case 0:
		plan, err = checkpoint.PlanDelete(disks, tree, []string{name}, checkpoint.DesignAuto)
	case 1:
		plan, err = checkpoint.PlanDelete(disks, tree, below[1:], checkpoint.DesignAuto)
	default:
		into = []string{name, "new", below[len(below)-1]}[h.next(3)]
		plan, err = checkpoint.PlanMerge(disks, tree, name, below[h.next(len(below))], into)
	}
	if err != nil {
		return
	}
	err = plan.Apply(disks, func(p checkpoint.Place) (*qcow2.Editor, error) {
		return qcow2.Edit(files[p.Layer], int64(len(files[p.Layer].b)), nil)
	}, docs)
	if err != nil {
		t.Fatalf("%+v: %v", plan, err)
	}
	var images []*qcow2.Image
	for _, f := range files {
		img, err := qcow2.Open(f, int64(len(f.b)), nil)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, img)
	}
	after := told(t, checkpoint.Disk{Target: "vda", Chain: checkpoint.NewChain(images)}, docs.tree())
	for left, is := range after {
		was, ok := before[left]
		if left == into {
			was, ok = before[name]
		}
		if !ok {
			t.Fatalf("%s is known after %+v, and was not before", left, plan)
		}
		wantSubset(t, left, was.needed, is.all)
	}
}
