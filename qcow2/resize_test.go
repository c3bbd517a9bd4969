package qcow2_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/crash"
)

// A resizeJudge knows what a file may be after a change of size, or a part of it.
type resizeJudge struct {
	c        *guestTrial
	old, new int64
	guest    []byte // of the new size
}

// resizes are the sizes that a trial gets.
func (c *guestTrial) resizes() []int64 {
	k := c.cluster
	sizes := []int64{c.size + 1, c.size + 100, c.size + 3*k, c.size + 70*k + 5, c.size * 9,
		c.size - 1, c.size - 100, c.size - 3*k, 70*k + 3, 64 * k, 5*k + 100, 2 * k, 0}
	var all []int64
	for _, size := range sizes {
		if size != c.size && (k < 16<<10 || size < 100*k) && size >= 0 {
			all = append(all, size)
		}
	}
	return all
}

func (c *guestTrial) resize(f *crash.File, size int64) (*resizeJudge, error) {
	j := &resizeJudge{c: c, old: c.size, new: size, guest: make([]byte, size)}
	copy(j.guest, c.disks[0].guest)
	e, opts, err := c.edit(f)
	if err != nil {
		return j, err
	}
	if err := e.Resize(size, &qcow2.ResizeOptions{Shrink: true, DataFile: opts.DataFile, DataSize: opts.DataSize}); err != nil {
		return j, err
	}
	if e.Image().Size() != size {
		return j, fmt.Errorf("the Editor's image has %d bytes", e.Image().Size())
	}
	return j, nil
}

// state judges a file; done says that Resize had returned.
func (j *resizeJudge) state(b []byte, done bool) error {
	data, b := b[:len(j.c.padded())], b[len(j.c.padded()):]
	a, err := auditBytes(b)
	if err != nil {
		return err
	}
	if len(a.Problems) > 0 || done && a.Leaks != j.c.leaks && !j.c.leaky {
		return fmt.Errorf("the audit finds %d leaks, %q", a.Leaks, a.Problems)
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
	want := j.guest
	if size := img.Size(); size == j.old && !done {
		want = j.c.disks[0].guest
	} else if size != j.new {
		return fmt.Errorf("the disk has %d bytes", size)
	}
	if !bytes.Equal(guest, want) {
		return fmt.Errorf("a disk of %d bytes reads otherwise", len(guest))
	}
	return j.bitmaps(img)
}

// bitmaps wants them of the disk's size: what was added is dirty where they record.
func (j *resizeJudge) bitmaps(img *qcow2.Image) error {
	if img.BitmapsStale() {
		return nil
	}
	for _, b := range j.c.trial.bitmaps {
		info, err := img.BitmapInfo(b.name)
		if err != nil || info.Flags != b.flags {
			return fmt.Errorf("bitmap %q: %+v, %w", b.name, info, err)
		}
		if info.InUse {
			continue
		}
		bits, err := img.LoadBitmap(b.name)
		if err != nil {
			return err
		}
		want := b.bits.Clone()
		if err := want.Resize(img.Size(), info.Auto); err != nil {
			return err
		}
		if grown := img.Size() - j.old; grown > 0 && info.Auto {
			want.Set(j.old, grown)
		}
		if !bits.Equal(want) {
			return fmt.Errorf("bitmap %q: %d bytes dirty, want %d", b.name, bits.Count(), want.Count())
		}
	}
	return nil
}

// A crash while the size changes leaves the old size with the old bitmaps, or the new
// one with the new ones; what is added reads as zero.
func TestResizeCrash(t *testing.T) {
	states, changes := 0, 0
	most := 8
	if full() {
		most = 300
	}
	for i, c := range append(guestTrials(), staleEnds()...) {
		if c.raw {
			continue // TestResizeRawData
		}
		t.Run(c.name, func(t *testing.T) {
			for k, size := range c.resizes() {
				if few := (i+k)%2 != 0 && !strings.Contains(c.name, "stale"); few && !full() {
					continue
				}
				f := c.both()
				j, err := c.resize(f, size)
				if err != nil {
					t.Fatalf("%d: %v", size, err)
				}
				changes++
				f.Mark()
				if err := j.state(f.Bytes(), true); err != nil {
					t.Fatalf("%d: %v", size, err)
				}
				f.States(&crash.Options{Max: most, Random: 1}, func(s *crash.State) bool {
					states++
					if err := j.state(s.Bytes(), s.Marks > 0); err != nil {
						t.Errorf("%d: %v: %v", size, s, err)
					}
					return !t.Failed()
				})
			}
		})
	}
	t.Logf("%d states of %d changes of size", states, changes)
}

// staleEnds are images whose tables and last cluster hold something behind the end of
// the disk, and backing files that are longer than the disk.
func staleEnds() []*guestTrial {
	var all []*guestTrial
	for name, change := range map[string]func(*build.Spec){
		"stale end":                  func(*build.Spec) {},
		"stale end, snapshot":        func(s *build.Spec) { s.Snapshots = []build.Snapshot{{ID: "1", Copy: true}} },
		"stale end, backing file":    func(s *build.Spec) { s.Backing, s.BackingFormat = "base.raw", "raw" },
		"version 2 over a backing":   func(s *build.Spec) { version2Guest(s); s.Backing = "base.raw" },
		"extended L2 over a backing": func(s *build.Spec) { guestExtended(s); s.Backing, s.BackingFormat = "base.raw", "raw" },
	} {
		s := guestSpec(change)
		c := newGuestTrial(name, s)
		img := build.Must(s)
		size := int64(s.Size) / c.cluster * 9 / 10 * c.cluster
		size -= size % 512
		if c.backing != nil {
			size = 3*c.cluster + 40
			c.backing = bytes.Repeat([]byte("long backing"), int(12*c.cluster)/12)
		}
		cut := img.Patch("header.size", uint64(size))
		guest := img.Disk.Over(c.backing)[:size]
		var disks []trialDisk
		for _, snap := range img.Snapshots {
			disks = append(disks, newTrialDisk(snap.ID, snap.Disk.Over(c.backing)))
		}
		c.trial = &trial{name: name, file: cut, size: size, disks: append([]trialDisk{newTrialDisk("", guest)}, disks...)}
		all = append(all, c)
	}
	return all
}

// Sizes that cannot be are refused before anything is written.
func TestResizeRefused(t *testing.T) {
	c := guestTrials()[0]
	bare := newGuestTrial("bare", guestSpec(func(s *build.Spec) {
		version2Guest(s)
		s.Snapshots = []build.Snapshot{{ID: "1", Copy: true, Bare: true}}
	}))
	for _, size := range []int64{-1, 1 << 62, c.size - 1, c.size + 1} {
		if size == c.size+1 {
			c = bare
		}
		f := c.both()
		e, _, err := c.edit(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Resize(size, &qcow2.ResizeOptions{Shrink: size < 0}); err == nil || len(f.Ops()) > 0 {
			t.Errorf("%d: %v, and %v", size, err, f.Ops())
		}
	}
}

// A raw data file gets the size of the disk, and zeros where it is longer.
func TestResizeRawData(t *testing.T) {
	s := guestSpec(func(s *build.Spec) { guestDataFile(s, true) })
	c := newGuestTrial("raw", s)
	for _, size := range c.resizes() {
		f, data := crash.New(c.file), crash.New(append(bytes.Clone(c.data), "junk behind the end"...))
		e, err := qcow2.Edit(f, f.Size(), c.editOpts(data.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		err = e.Resize(size, &qcow2.ResizeOptions{Shrink: true, DataFile: data, DataSize: data.Size()})
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, size)
		copy(want, c.disks[0].guest)
		if got := data.Bytes(); int64(len(got)) < size || !bytes.Equal(got[:size], want) {
			t.Errorf("%d: the data file has %d bytes, or others", size, len(got))
		}
		img, err := qcow2.Open(f, f.Size(), c.editOpts(data.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readAll(img); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d: the disk reads otherwise, %v", size, err)
		}
	}
}
