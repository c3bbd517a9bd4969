package qcow2_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/crash"
)

// refcountImages are small images of every refcount width, with all structures.
func refcountImages() []*build.Image {
	var all []*build.Image
	for width := 1; width <= 64; width *= 2 {
		s := spec(func(s *build.Spec) {
			s.RefcountBits, s.Size = width, 130*512
			s.Bitmaps = s.Bitmaps[:4]
			if width > 2 {
				withSnapshots(s)
			}
		})
		all = append(all, build.Must(s))
	}
	all = append(all, build.Must(spec(func(s *build.Spec) { s.CryptMethod, s.Size = 2, 90*512 })))
	return append(all, filled(spec(func(s *build.Spec) { s.Bitmaps = s.Bitmaps[:2] }), 256))
}

// A harm is what must not happen to an image that is broken already: a byte of
// the guest or of a table changes, or a refcount becomes too low for what there is.
type harm struct {
	before *build.Audit
	file   []byte
}

func newHarm(file []byte) (*harm, error) {
	a, err := auditBytes(file)
	return &harm{a, file}, err
}

// protected reports that no byte of the cluster may change, whatever the refcounts say.
func protected(cl build.AuditCluster) bool {
	switch cl.Use {
	case build.Unused, build.UsedByHeader, build.UsedByRefcountTable, build.UsedByRefcountBlock:
		return false
	}
	return true
}

// done is the harm that was done; kept are the bitmaps that no change names.
func (h *harm) done(after []byte, kept func(name string) bool) error {
	a, err := auditBytes(after)
	if err != nil {
		return err
	}
	if a.Mapping != h.before.Mapping {
		return fmt.Errorf("the guest is mapped to other clusters")
	}
	for i, cl := range h.before.Clusters {
		if err := h.cluster(int64(i), cl, a, after); err != nil {
			return fmt.Errorf("cluster %d (%v, %d references, refcount %d): %w", i, cl.Use, cl.Refs, cl.Count, err)
		}
	}
	for _, b := range h.before.Bitmaps {
		if kept(b.Name) && !slices.Contains(a.Bitmaps, b) {
			return fmt.Errorf("bitmap %q is no longer what it was: %+v", b.Name, a.Bitmaps)
		}
	}
	return nil
}

func (h *harm) cluster(i int64, cl build.AuditCluster, a *build.Audit, after []byte) error {
	lo := i * a.ClusterSize
	hi := min(lo+a.ClusterSize, int64(len(h.file)))
	switch {
	case cl.Refs == 0:
		return nil
	case hi > int64(len(after)):
		return fmt.Errorf("it is no longer in the file")
	case protected(cl) && !cl.Use.Bitmap() && !bytes.Equal(h.file[lo:hi], after[lo:hi]):
		return fmt.Errorf("its bytes are changed")
	}
	now := a.Clusters[i]
	if now.Refs > 0 && now.Count < now.Refs && now.Count < cl.Count {
		return fmt.Errorf("it has %d references, and its refcount is now %d", now.Refs, now.Count)
	}
	if now.Refs > 1 && now.Use != cl.Use {
		return fmt.Errorf("it is used by %v too", now.Use)
	}
	return nil
}

// tryAll does every operation, or one in so many of them, to a broken image and
// counts those that were not refused.
func tryAll(t *testing.T, name string, img *build.Image, file []byte, part int) (done, refused int) {
	t.Helper()
	h, err := newHarm(file)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	c := newTrial(name, img)
	for k, o := range operations() {
		changes := o.on(c)
		if len(changes) == 0 || k%part != len(name)%part {
			continue
		}
		f := crash.New(file)
		if _, err := c.update(f, changes); err != nil {
			refused++
		} else {
			done++
		}
		if err := h.done(f.Bytes(), keptBy(changes)); err != nil {
			t.Errorf("%s, %s: %v", name, o.name, err)
		}
		if len(f.Ops()) > 0 && (done%5 == 0 || full()) {
			h.crashes(t, fmt.Sprintf("%s, %s", name, o.name), f, keptBy(changes))
		}
	}
	return done, refused
}

// crashes looks for harm in some states that a crash can leave: there the bitmaps
// must be the old ones or the new ones.
func (h *harm) crashes(t *testing.T, name string, f *crash.File, kept func(string) bool) {
	t.Helper()
	after, err := auditBytes(f.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	f.States(&crash.Options{Max: 6, Random: -1}, func(s *crash.State) bool {
		a, err := build.AuditFile(s, s.Size())
		if err == nil && !slices.Equal(a.Bitmaps, h.before.Bitmaps) && !slices.Equal(a.Bitmaps, after.Bitmaps) {
			err = fmt.Errorf("neither the old bitmaps nor the new: %+v", a.Bitmaps)
		}
		if err == nil {
			err = h.done(s.Bytes(), kept)
		}
		if err != nil {
			t.Errorf("%s, %v: %v", name, s, err)
		}
		return !t.Failed()
	})
}

// keptBy tells which bitmaps no change names.
func keptBy(changes []change) func(string) bool {
	return func(name string) bool {
		return !slices.ContainsFunc(changes, func(c change) bool { return c.kind == dropAll || c.name == name })
	}
}

// With the refcount of any one used cluster at 0, at 7 and at the highest that
// there is, no operation changes a byte of the guest or of a table.
func TestEditorWrongRefcounts(t *testing.T) {
	var done, refused int
	for _, img := range refcountImages() {
		a, err := auditBytes(img.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		width := img.Spec.RefcountBits
		for cluster, cl := range a.Clusters {
			if len(a.Clusters) > 200 && cluster%5 != 0 && !full() {
				continue
			}
			for _, n := range []uint64{0, 7, 1<<(width-1)<<1 - 1} {
				file := slices.Clone(img.Bytes)
				img.SetRefcount(file, uint64(cluster), n)
				part := 1
				if n > 0 && !full() {
					part = 4
				}
				d, r := tryAll(t, fmt.Sprintf("%d bits, cluster %d (%v) at %d", width, cluster, cl.Use, n), img, file, part)
				done, refused = done+d, refused+r
			}
			if t.Failed() {
				return
			}
		}
	}
	t.Logf("%d operations were done, %d refused", done, refused)
}

// The same with any number of refcounts at random values, and whole blocks missing.
func TestEditorRandomRefcounts(t *testing.T) {
	var done, refused int
	images := refcountImages()
	rounds := 60
	if full() {
		rounds = 3000
	}
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(uint64(seed), 9))
		img := images[seed%len(images)]
		file := slices.Clone(img.Bytes)
		n := len(file) / int(img.ClusterSize)
		for range 1 + rng.IntN(n) {
			img.SetRefcount(file, uint64(rng.IntN(n)), uint64(rng.IntN(3)))
		}
		if rng.IntN(6) == 0 {
			clear(file[img.At("refcount_table[0]").Off:][:8])
		}
		d, r := tryAll(t, fmt.Sprint("seed ", seed), img, file, 1)
		done, refused = done+d, refused+r
		if t.Failed() {
			return
		}
	}
	t.Logf("%d operations were done, %d refused", done, refused)
}

// overlaps are fields of a bitmap that can point at clusters of others.
func overlaps(img *build.Image) []string {
	return []string{"bitmap[0].bitmap_table_offset", "bitmap[2].bitmap_table_offset", "bitmap[0].table[0]", "bitmap[2].table[0]",
		"bitmaps_extension.bitmap_directory_offset"}
}

// A bitmap whose table or data is a cluster of the guest, a table or another
// bitmap: no operation changes or frees it. The same with refcounts that were mended.
func TestEditorOverlaps(t *testing.T) {
	var done, refused int
	img := refcountImages()[4]
	a, err := auditBytes(img.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range overlaps(img) {
		for cluster, cl := range a.Clusters {
			for _, mended := range []bool{false, true} {
				file := img.Patch(field, uint64(cluster)*img.ClusterSize)
				if broken, err := auditBytes(file); err == nil && mended {
					for i, cl := range broken.Clusters {
						img.SetRefcount(file, uint64(i), cl.Refs)
					}
				}
				d, r := tryAll(t, fmt.Sprintf("%s points at cluster %d (%v), mended %t", field, cluster, cl.Use, mended), img, file, 1)
				done, refused = done+d, refused+r
			}
		}
	}
	t.Logf("%d operations were done, %d refused", done, refused)
}

// A file that ends inside a cluster of the guest which is needed whole: what it
// lacks would read as zeros once the file grows, so nothing is done to it.
func TestEditorCutFile(t *testing.T) {
	img := build.Must(build.Spec{Size: 8 * 512, Clusters: map[uint64]build.Cluster{0: {Form: build.Normal}}})
	c := newTrial("cut", img)
	for _, o := range operations() {
		f := crash.New(img.Cut(int64(len(img.Bytes)) - 8))
		if _, err := c.update(f, o.on(c)); len(o.on(c)) > 0 && (err == nil || len(f.Ops()) > 0) {
			t.Errorf("%s: %v, after %v", o.name, err, f.Ops())
		}
	}
}

// Fields whose damage hides references: no operation may then take a cluster that
// only seems to be free.
func TestEditorHiddenReferences(t *testing.T) {
	img := build.Must(spec(func(s *build.Spec) { withSnapshots(s); s.Size = 130 * 512 }))
	intact, err := newHarm(img.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	c := newTrial("hidden", img)
	for _, patch := range []map[string]uint64{
		{"snapshot[0].l1_table_offset": 1},
		{"snapshot[1].name_size": 65535},
		{"snapshot[0].extra_data_size": 1 << 30},
		{"header.snapshots_offset": 1 << 40},
		{"header.snapshots_offset": 77},
		{"header.nb_snapshots": 100000},
		{"snapshot[1].l1_size": 1 << 30},
		{"snapshot[1].l1[0]": 1 << 55},
		{"l1[1]": 77},
		{"l1[0]": 1<<63 | 1<<40},
		{"l2[0][0]": 1<<63 | 1<<40},
		{"bitmap[2].bitmap_table_size": 1 << 31},
		{"bitmap[2].bitmap_table_offset": 1 << 50},
		{"bitmap[2].table[0]": 1 << 50},
		{"bitmap[1].name_size": 2000},
	} {
		file := img.PatchAll(patch)
		for i, cl := range intact.before.Clusters { // all that nobody is seen to use seems free
			broken, err := auditBytes(file)
			if err != nil || broken.Clusters[i].Refs > 0 || cl.Use == build.UsedByRefcountTable {
				continue
			}
			img.SetRefcount(file, uint64(i), 0)
		}
		for _, o := range operations() {
			f := crash.New(file)
			changes := o.on(c)
			_, err := c.update(f, changes)
			for i, cl := range intact.before.Clusters {
				lo := int64(i) * intact.before.ClusterSize
				if !protected(cl) || cl.Use.Bitmap() {
					continue
				}
				if !bytes.Equal(f.Bytes()[lo:lo+intact.before.ClusterSize], file[lo:lo+intact.before.ClusterSize]) {
					t.Errorf("%v, %s (error %v): cluster %d (%v) is changed", patch, o.name, err, i, cl.Use)
				}
			}
		}
	}

}
