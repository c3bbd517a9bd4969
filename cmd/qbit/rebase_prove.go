package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/qbitkit/qbit/reconstruct"
)

// What is known of the disk of IMAGE after a change of the name alone.
const (
	contentSame    = "same"
	contentUnknown = "unknown"
	contentDiffers = "differs"
)

// A proof is what is known, and from what.
type proof struct {
	content string
	why     string
}

// rename changes the name alone, and says what that means.
func (j *rebasing) rename(ctx context.Context) error {
	opened := j.openNew()
	if err := j.nameFormat(opened); err != nil {
		return err
	}
	p, err := j.known(ctx, opened)
	if err != nil {
		return err
	}
	if j.r.prove {
		switch p.content {
		case contentDiffers:
			return badData{fmt.Errorf("%s: nothing was changed: %s", escapeName(j.image.path), p.why)}
		case contentUnknown:
			return fmt.Errorf("%s: nothing was changed: it is not proven that the disk stays the same: %s", escapeName(j.image.path), p.why)
		}
	}
	j.report = j.newReport("unsafe")
	j.report.Content, j.report.Why = p.content, p.why
	if p.content != contentSame {
		j.report.Why = "not proven: " + p.why
	} else {
		j.report.Why = "proven: " + p.why
	}
	j.warnSize()
	return j.link()
}

// nameFormat sees to it that there is a format to write, and refuses what can never be
// right.
func (j *rebasing) nameFormat(opened error) error {
	if j.ref == nil {
		return nil
	}
	if j.r.backingFormat != "" && j.ref.Format != j.r.backingFormat {
		j.c.warn("%s: it is %s, and -F says %s, which is written", escapeName(j.ref.Name), j.ref.Format, escapeName(j.r.backingFormat))
		j.ref.Format = j.r.backingFormat
	}
	var bad badData
	switch {
	case errors.As(opened, &bad): // it stands on itself
		return opened
	case j.ref.Format == "":
		return fmt.Errorf("%w; its format has to be written all the same: say it with -F", opened)
	}
	return nil
}

// warnSize says that the new backing file has another size, where nothing better is
// known.
func (j *rebasing) warnSize() {
	if j.newDisk == nil || j.ref == nil || j.report.Content == contentSame {
		return
	}
	if size, image := j.newDisk.Size(), j.image.image.Size(); size != image {
		j.c.warn("%s: its disk has %d bytes, that of %s %d: is it the right one?", escapeName(j.newPath), size, escapeName(j.image.path), image)
	}
}

// known is what can be told of the disk. Guest bytes are read only for --prove.
func (j *rebasing) known(ctx context.Context, opened error) (proof, error) {
	if opened != nil {
		return proof{contentUnknown, fmt.Sprintf("the new backing file could not be opened (%v)", opened)}, nil
	}
	if old := j.oldDisk(); old != nil {
		p, err := j.byComparing(ctx)
		if err != nil && ctx.Err() == nil { // the name can be changed all the same
			p, err = proof{contentUnknown, fmt.Sprintf("comparing the backing files failed (%v)", err)}, nil
		}
		return p, err
	}
	p := proof{contentUnknown, fmt.Sprintf("the old backing file could not be opened (%v)", j.image.closed)}
	if !j.r.prove {
		p.why += "; --prove looks for a manifest"
		return p, nil
	}
	return j.byManifest(ctx, p)
}

// byComparing compares old and new where IMAGE holds nothing.
func (j *rebasing) byComparing(ctx context.Context) (proof, error) {
	views, names, err := j.views()
	if err != nil {
		return proof{}, err
	}
	if !j.r.prove {
		cost, err := reconstruct.CostOfRebase(ctx, views, j.oldDisk(), j.newDisk, j.rebaseOptions(nil))
		switch {
		case err != nil:
			return proof{}, err
		case cost == 0:
			return proof{contentSame, "the disk stays the same: the maps of both backing files are alike"}, nil
		}
		return proof{contentUnknown, fmt.Sprintf("%s of both backing files would have to be read, which --prove does", formatSize(cost))}, nil
	}
	m := newMeter(j.c, &j.r.progressFlags, "compare", j.image.image.Size())
	defer m.clearLine()
	differs, err := reconstruct.PlanRebase(ctx, views, j.oldDisk(), j.newDisk, j.rebaseOptions(m))
	if err != nil {
		return proof{}, err
	}
	m.Finish()
	for i, d := range differs {
		if off, found := d.Next(0); found {
			of := ""
			if i > 0 {
				of = " of its snapshot " + quote(escapeName(names[i]))
			}
			return proof{contentDiffers, fmt.Sprintf("the disk%s would change in %s, from byte %d on: the new backing file holds something else than the old one",
				of, formatSize(d.Count()), off)}, nil
		}
	}
	return proof{contentSame, "the disk stays the same: the new backing file holds what the old one does wherever the image holds nothing"}, nil
}
