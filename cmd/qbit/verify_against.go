package main

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/plan"
)

// A coverReport says whether a link holds all that a bitmap says has changed.
type coverReport struct {
	Link    string        `json:"link"`
	Bitmap  string        `json:"bitmap"`
	Dirty   int64         `json:"dirty-bytes"`
	Missing int64         `json:"missing-bytes"`
	First   []missedRange `json:"missing,omitempty"` // the first of them
	// Unit is what a backup job copies at the least; Rounded what is missing of the
	// bitmap rounded out to it.
	Unit    int64 `json:"copy-unit,omitempty"`
	Rounded int64 `json:"missing-rounded-bytes,omitempty"`
}

type missedRange struct {
	Start  int64 `json:"start"`
	Length int64 `json:"length"`
}

// An againstArg is one --against.
type againstArg struct {
	backup      *plan.Backup
	image, name string
	dirty       *bitmap.Bitmap
}

// maxMissed is how many ranges are named.
const maxMissed = 8

// parseAgainst finds the links that --against means, and loads the bitmaps.
func (v *verifier) parseAgainst() ([]againstArg, error) {
	o, err := v.k.newOpener(v.c)
	if err != nil {
		return nil, err
	}
	defer o.close()
	var all []againstArg
	for _, arg := range v.k.against {
		b, source, err := v.againstLink(arg)
		if err != nil {
			return nil, err
		}
		if b.Kind.Whole() {
			return nil, usagef("--against %q: %s is a whole backup, and holds all", arg, escapeName(b.ID))
		}
		image, name, err := splitBitmap(source, pathExists)
		if err != nil {
			return nil, usagef("--against %q: %w", arg, err)
		}
		a := againstArg{backup: b, image: image, name: name}
		if a.dirty, err = o.loadAgainst(a); err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, nil
}

// againstLink finds the link of one --against, and what is left of the argument.
func (v *verifier) againstLink(arg string) (*plan.Backup, string, error) {
	if v.k.point != "" {
		b, err := v.backupAt()
		return b, arg, err
	}
	var found *plan.Backup
	rest := ""
	for _, form := range []func(*plan.Backup) string{
		func(b *plan.Backup) string { return b.ID },
		func(b *plan.Backup) string { return path.Base(b.ID) },
		func(b *plan.Backup) string { return b.Point },
	} {
		for _, d := range v.s.Disks {
			for _, b := range d.Backups {
				r, ok := strings.CutPrefix(arg, form(b)+"=")
				if ok && found != nil {
					return nil, "", usagef("--against %q: it means both %s and %s", arg, escapeName(found.ID), escapeName(b.ID))
				}
				if ok {
					found, rest = b, r
				}
			}
		}
		if found != nil {
			return found, rest, nil
		}
	}
	return nil, "", usagef("--against %q: it is LINK=IMAGE:BITMAP, or IMAGE:BITMAP with --point; there is no such link", arg)
}

// backupAt is the backup that --point, and --disk, mean.
func (v *verifier) backupAt() (*plan.Backup, error) {
	var found []*plan.Backup
	for _, d := range v.s.Disks {
		if v.k.disk != "" && v.k.disk != d.Name && v.k.disk != diskTitle(d) {
			continue
		}
		for _, b := range d.Backups {
			if b.Point == v.k.point || b.ID == v.k.point {
				found = append(found, b)
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, usagef("--point %q: there is no such point", v.k.point)
	}
	return nil, usagef("--point %q: it means both %s and %s; name the file, or the disk with --disk", v.k.point, escapeName(found[0].ID), escapeName(found[1].ID))
}

// coverAll compares links with bitmaps.
func (v *verifier) coverAll(ctx context.Context, args []againstArg) error {
	for _, arg := range args {
		if err := v.cover(ctx, arg); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) cover(ctx context.Context, arg againstArg) error {
	o, err := v.k.newOpener(v.c)
	if err != nil {
		return err
	}
	defer o.close()
	l, err := o.openBackup(v.s, arg.backup)
	if err != nil {
		return err
	}
	link := o.link(l, true)
	r := &coverReport{Link: arg.backup.ID, Bitmap: arg.image + ":" + arg.name, Dirty: arg.dirty.Count()}
	missing, total, err := reconstruct.Missing(ctx, link, arg.dirty, maxMissed)
	if err != nil {
		return badData{err}
	}
	r.Missing = total
	for _, m := range missing {
		r.First = append(r.First, missedRange{m.Off, m.Len})
	}
	v.covers = append(v.covers, r)
	return r.round(ctx, l, link, arg.dirty)
}

// round looks whether the link also holds what the bitmap says rounded out to the
// unit in which a backup job of QEMU copies.
func (r *coverReport) round(ctx context.Context, l *layer, link reconstruct.Link, dirty *bitmap.Bitmap) error {
	if l.image == nil {
		return nil
	}
	r.Unit = max(64<<10, l.image.Geometry().ClusterSize())
	if dirty.Granularity() < r.Unit {
		var err error
		if dirty, err = dirty.WithGranularity(r.Unit); err != nil {
			return err
		}
	}
	var err error
	_, r.Rounded, err = reconstruct.Missing(ctx, link, dirty, 0)
	return err
}

// loadAgainst loads a bitmap. One that records holds later changes too, which the
// link cannot hold.
func (o *opener) loadAgainst(arg againstArg) (*bitmap.Bitmap, error) {
	l, err := o.openAlone(arg.image)
	if err != nil {
		return nil, err
	}
	if l.image == nil {
		return nil, usagef("--against: %s is raw and has no bitmaps", escapeName(arg.image))
	}
	b, err := l.image.LoadBitmap(arg.name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", escapeName(l.path), err)
	}
	info, err := l.image.BitmapInfo(arg.name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", escapeName(l.path), err)
	}
	if info.Auto {
		o.c.warn("%s: bitmap %q is recording: it marks all that changed since it was made; what changed after the backup %s is missing there, and no fault",
			escapeName(l.path), arg.name, escapeName(arg.backup.ID))
	}
	return b, nil
}
