package qcow2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// expectGuest checks all guest bytes.
func (c *trial) expectGuest(img *qcow2.Image) error {
	if c.encrypted {
		return nil
	}
	for i := range c.disks {
		if err := c.disks[i].expect(img); err != nil {
			return fmt.Errorf("disk %q: %w", c.disks[i].snapshot, err)
		}
	}
	return nil
}

func (d *trialDisk) expect(img *qcow2.Image) error {
	disk := qcow2.Disk(img)
	if d.snapshot != "" {
		var err error
		if disk, err = img.SnapshotDisk(d.snapshot); err != nil {
			return err
		}
	}
	if disk.Size() != int64(len(d.guest)) {
		return fmt.Errorf("%d bytes, want %d", disk.Size(), len(d.guest))
	}
	var buf []byte
	for e, err := range disk.Extents(0, disk.Size()) {
		if err != nil {
			return err
		}
		want := d.guest[e.Off:e.End()]
		if e.Kind == qcow2.Absent && img.Backing() == nil || e.Kind == qcow2.Zero {
			if i, _ := slices.BinarySearch(d.sectors, e.Off/512); i < len(d.sectors) && d.sectors[i]*512 < e.End() {
				return fmt.Errorf("%+v: the bytes are not zero", e)
			}
			continue
		}
		buf = slices.Grow(buf[:0], len(want))[:len(want)]
		if n, err := disk.ReadAt(buf, e.Off); n < len(want) {
			return err
		}
		if !bytes.Equal(buf, want) {
			return fmt.Errorf("%+v: other bytes", e)
		}
	}
	return nil
}

// frameOf is all that the first cluster says, but for what is the Editor's to
// change: the bitmaps, the place of the refcount table and of the backing file's
// name, autoclear bits that are not known, and the names of features.
func frameOf(img *qcow2.Image) string {
	h := img.Header()
	h.RefcountTableOffset, h.RefcountTableClusters = 0, 0
	h.AutoclearFeatures &= qcow2.AutoclearRawData
	h.BackingFileOffset = 0
	s := fmt.Sprintf("%+v", h)
	for _, ref := range []*qcow2.Ref{img.Backing(), img.DataFile()} {
		if ref != nil {
			s += fmt.Sprintf("%+v", *ref)
		}
	}
	for _, e := range img.Extensions() {
		if e.Type != qcow2.ExtBitmaps && e.Type != qcow2.ExtFeatureNames {
			s += fmt.Sprintf(" %x %x", e.Type, e.Data)
		}
	}
	return s
}

// A verdict is which bitmaps a file has.
type verdict uint8

const (
	oldBitmaps verdict = iota
	newBitmaps
	unusableBitmaps // stale or inconsistent, and says so
	verdicts
)

func (v verdict) String() string {
	return [...]string{"old", "new", "unusable"}[v]
}

// An editorJudge knows what a file may be after a change, or after a part of it.
type editorJudge struct {
	trial    *trial
	frame    string
	old, new *build.Audit
}

func auditBytes(b []byte) (*build.Audit, error) {
	return build.AuditFile(bytes.NewReader(b), int64(len(b)))
}

// newEditorJudge: changed is the file with the whole change.
func newEditorJudge(c *trial, changed []byte) (*editorJudge, error) {
	j := &editorJudge{trial: c}
	var err error
	if j.old, err = auditBytes(c.file); err != nil {
		return nil, err
	}
	if j.new, err = auditBytes(changed); err != nil {
		return nil, err
	}
	img, err := qcow2.Open(bytes.NewReader(c.file), int64(len(c.file)), c.opts)
	if err != nil {
		return nil, err
	}
	j.frame = frameOf(img)
	return j, nil
}

// look judges a file; thorough reads all guest bytes and bitmaps. The error is
// what no file may ever be.
func (j *editorJudge) look(r io.ReaderAt, size int64, thorough bool) (verdict, error) {
	a, err := build.AuditFile(r, size)
	if err != nil {
		return 0, err
	}
	if len(a.Problems) > 0 {
		return 0, fmt.Errorf("the audit finds %q", a.Problems)
	}
	if a.Mapping != j.old.Mapping {
		return 0, errors.New("the guest is mapped to other clusters")
	}
	if err := j.sameRefcounts(a); err != nil {
		return 0, err
	}
	img, err := qcow2.Open(r, size, j.trial.opts)
	if err != nil {
		return 0, err
	}
	if frame := frameOf(img); frame != j.frame {
		return 0, fmt.Errorf("the header says\n%s, want\n%s", frame, j.frame)
	}
	v, err := j.verdict(a)
	if err == nil && thorough {
		err = j.reads(img)
	}
	return v, err
}

// sameRefcounts wants the refcounts of all clusters that are not the Editor's.
func (j *editorJudge) sameRefcounts(a *build.Audit) error {
	for i, cl := range j.old.Clusters {
		if cl.Refs == 0 || cl.Use.Bitmap() || cl.Use == build.UsedByRefcountTable {
			continue
		}
		if i >= len(a.Clusters) || a.Clusters[i].Count != cl.Count {
			return fmt.Errorf("the refcount of cluster %d (%v) is no longer %d", i, cl.Use, cl.Count)
		}
	}
	return nil
}

// verdict compares the bitmaps.
func (j *editorJudge) verdict(a *build.Audit) (verdict, error) {
	switch have := byName(a.Bitmaps); {
	case a.Stale == j.old.Stale && slices.Equal(have, byName(j.old.Bitmaps)):
		return oldBitmaps, nil
	case a.Stale == j.new.Stale && slices.Equal(have, byName(j.new.Bitmaps)):
		return newBitmaps, nil
	case a.Stale:
		return unusableBitmaps, nil
	default:
		return 0, fmt.Errorf("neither the old bitmaps nor the new: %+v", a.Bitmaps)
	}
}

// reads reads the guest, and the bitmaps that can be used.
func (j *editorJudge) reads(img *qcow2.Image) error {
	if err := j.trial.expectGuest(img); err != nil {
		return err
	}
	list, err := img.Bitmaps()
	if err != nil || img.BitmapsStale() {
		return err
	}
	for i := range list {
		var unsupported *qcow2.UnsupportedError
		if _, err := img.LoadBitmap(list[i].Name); err != nil && !errors.As(err, &unsupported) && !list[i].InUse {
			return err
		}
	}
	return nil
}

// whole reports that the extension shares the header's first sector, or that
// there is none.
func whole(a *build.Audit) bool { return a.Extension+32 <= 512 }

// atomic reports that no state between old and new is allowed.
func (j *editorJudge) atomic() bool { return whole(j.old) && whole(j.new) }
