package qcow2_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/crash"
)

// A guestJudge knows what a file may be after changes of the guest, or a part of them.
type guestJudge struct {
	c        *guestTrial
	ops      []guestOp
	old, new []byte
	torn     bool // a write that failed has written a part of a sector
}

// run makes the changes; the mark is behind the last of them.
func (c *guestTrial) run(f *crash.File, ops []guestOp) (*guestJudge, error) {
	j := &guestJudge{c: c, ops: ops, old: c.disks[0].guest}
	j.new = c.apply(j.old, ops)
	e, opts, err := c.edit(f)
	if err != nil {
		return j, err
	}
	g, err := e.Guest(&opts)
	if err != nil {
		return j, err
	}
	for _, o := range ops {
		if err := o.do(g); err != nil {
			return j, errors.Join(fmt.Errorf("%v: %w", o, err), g.Close())
		}
	}
	return j, g.Close()
}

// state judges a file; done says that Close had returned.
func (j *guestJudge) state(b []byte, done bool) error {
	data, b := b[:len(j.c.padded())], b[len(j.c.padded()):]
	a, err := auditBytes(b)
	if err != nil {
		return err
	}
	if len(a.Problems) > 0 {
		return fmt.Errorf("the audit finds %q", a.Problems)
	}
	if done && a.Leaks != j.c.leaks && !j.c.leaky {
		return fmt.Errorf("%d leaks", a.Leaks)
	}
	img, err := qcow2.Open(bytes.NewReader(b), int64(len(b)), j.c.editOpts(data))
	if err != nil {
		return err
	}
	for i := range j.c.disks[1:] {
		if err := j.c.disks[1+i].expect(img); err != nil {
			return fmt.Errorf("snapshot %q: %w", j.c.disks[1+i].snapshot, err)
		}
	}
	guest, err := readAll(img)
	if err != nil {
		return err
	}
	if err := j.guest(guest, done); err != nil {
		return err
	}
	return j.bitmaps(img, guest, done)
}

// guest wants each sector old or new; each cluster, where nothing is written in place.
func (j *guestJudge) guest(guest []byte, done bool) error {
	unit := 512
	if j.torn {
		unit = 1
	}
	if j.c.opts.NeverInPlace {
		unit = int(j.c.cluster)
	}
	for off := 0; off < len(guest); off += unit {
		end := min(off+unit, len(guest))
		isOld, isNew := bytes.Equal(guest[off:end], j.old[off:end]), bytes.Equal(guest[off:end], j.new[off:end])
		if !isNew && (done || !isOld) {
			return fmt.Errorf("the bytes at %d are neither old nor new (done: %t, old: %t)", off, done, isOld)
		}
	}
	return nil
}

// bitmaps wants those that record to say all that changed, and nothing else once it
// is done; others as they were.
func (j *guestJudge) bitmaps(img *qcow2.Image, guest []byte, done bool) error {
	list, err := img.Bitmaps()
	if err != nil || len(list) != len(j.c.trial.bitmaps) {
		return fmt.Errorf("%d bitmaps, %w", len(list), err)
	}
	for _, b := range j.c.trial.bitmaps {
		info, err := img.BitmapInfo(b.name)
		if err != nil || info.Flags != b.flags {
			return fmt.Errorf("bitmap %q: %+v, %w", b.name, info, err)
		}
		bits, err := img.ReadBitmap(info)
		if err != nil {
			return err
		}
		most := b.bits.Clone()
		if info.Auto && !info.InUse {
			for _, r := range j.c.written(j.ops) {
				most.Set(r.Off, r.Len)
			}
		}
		have := bits.Clone()
		if err := errors.Join(have.Difference(most), most.Difference(bits)); err != nil {
			return err
		}
		lost := b.bits.Clone()
		if err := lost.Difference(bits); err != nil {
			return err
		}
		if have.Count() > 0 || lost.Count() > 0 || done && !j.c.discards(j.ops) && most.Count() > 0 {
			return fmt.Errorf("bitmap %q: %d bytes too many, %d of the changed ones missing, %d of the old ones", b.name, have.Count(), most.Count(), lost.Count())
		}
		for off := int64(0); info.Auto && !info.InUse && off < int64(len(guest)); off++ {
			if guest[off] != j.old[off] && !bits.Test(off) {
				return fmt.Errorf("bitmap %q says that %d is clean, which changed", b.name, off)
			}
		}
	}
	return nil
}

// discards reports operations that change less than their range.
func (c *guestTrial) discards(ops []guestOp) bool {
	return slices.ContainsFunc(ops, func(o guestOp) bool { return o.kind == 'd' })
}

// All changes read as they should, on images of every kind.
func TestGuest(t *testing.T) {
	for _, c := range guestTrials() {
		t.Run(c.name, func(t *testing.T) {
			for name, ops := range c.guestOperations() {
				f := c.both()
				j, err := c.run(f, ops)
				if err == nil {
					err = j.state(f.Bytes(), true)
				}
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

// In every state that a crash can leave, each sector is old or new, the audit finds
// nothing worse than leaks, snapshots read the same, and bitmaps that record say what
// changed.
func TestGuestCrash(t *testing.T) {
	totals := map[string]int{}
	most := 6
	if full() {
		most = 300
	}
	for i, c := range guestTrials() {
		t.Run(c.name, func(t *testing.T) {
			all := c.guestOperations()
			for k, name := range slices.Sorted(maps.Keys(all)) {
				if !full() && (i+k)%4 != 0 {
					continue
				}
				f := c.both()
				j, err := c.run(f, all[name])
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				f.Mark()
				f.States(&crash.Options{Max: most, Random: 2}, func(s *crash.State) bool {
					totals[name]++
					totals["all"]++
					if err := j.state(s.Bytes(), s.Marks > 0); err != nil {
						t.Errorf("%s: %v: %v", name, s, err)
					}
					return !t.Failed()
				})
			}
		})
	}
	for _, name := range slices.Sorted(maps.Keys(totals)) {
		t.Logf("%6d states: %s", totals[name], name)
	}
}

// Refcounts are not believed: where one is wrong, no byte changes that was not to be
// changed, of the disk or of a snapshot, and no refcount becomes too low that was not.
func TestGuestWrongRefcounts(t *testing.T) {
	runs := 0
	for _, c := range guestTrials() {
		if c.name != "snapshots" && c.name != "512 B" && c.name != "version 2, snapshots" {
			continue
		}
		a, err := auditBytes(c.file)
		if err != nil {
			t.Fatal(err)
		}
		for k, cl := range a.Clusters {
			for i, count := range []uint64{0, 1, cl.Count + 7} {
				if count == cl.Count || !full() && (k+i)%3 != 0 {
					continue
				}
				wrong := *c
				wrong.file = bytes.Clone(c.file)
				c.image.SetRefcount(wrong.file, uint64(k), count)
				runs++
				wrong.withWrong(t, fmt.Sprintf("%s, refcount %d of cluster %d (%v)", c.name, count, k, cl.Use))
			}
		}
	}
	t.Logf("%d images with a wrong refcount", runs)
}

// Where refcounts and COPIED bits say that clusters which snapshots share are the
// disk's alone, they are not written in place all the same.
func TestGuestWrongCopied(t *testing.T) {
	for _, c := range guestTrials() {
		if c.name != "snapshots" {
			continue
		}
		wrong := *c
		values := map[string]uint64{}
		for _, name := range c.image.Names() {
			if !strings.HasPrefix(name, "l1[") && !strings.HasPrefix(name, "l2[") || !strings.HasSuffix(name, "]") || c.image.At("%s", name).Len != 8 {
				continue
			}
			if v := c.image.Field(name); v>>9 != 0 && v>>62 == 0 {
				values[name] = v | 1<<63
			}
		}
		wrong.file = c.image.PatchAll(values)
		for k := range len(c.file) / 512 {
			c.image.SetRefcount(wrong.file, uint64(k), 1)
		}
		wrong.withWrong(t, fmt.Sprintf("%d COPIED bits", len(values)))
		if len(values) < 5 {
			t.Errorf("only %d bits are wrong", len(values))
		}
	}
}

// withWrong changes the guest of an image with a wrong refcount.
func (c *guestTrial) withWrong(t *testing.T, name string) {
	t.Helper()
	before, err := auditBytes(c.file)
	if err != nil {
		t.Fatal(err)
	}
	f := crash.New(c.file)
	j, err := c.run(f, c.guestOperations()["many kinds"])
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	img, err := qcow2.Open(f, f.Size(), c.trial.opts)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for i := range c.disks[1:] {
		if err := c.disks[1+i].expect(img); err != nil {
			t.Errorf("%s: snapshot %q: %v", name, c.disks[1+i].snapshot, err)
		}
	}
	if guest, err := readAll(img); err != nil || !bytes.Equal(guest, j.new) {
		t.Errorf("%s: the disk reads otherwise, %v", name, err)
	}
	now, err := auditBytes(f.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for i, cl := range now.Clusters[:len(before.Clusters)] {
		if cl.Count < cl.Refs && cl.Refs-cl.Count > max(before.Clusters[i].Refs, before.Clusters[i].Count)-before.Clusters[i].Count {
			t.Errorf("%s: cluster %d (%v) has %d references and the refcount %d", name, i, cl.Use, cl.Refs, cl.Count)
		}
	}
}
