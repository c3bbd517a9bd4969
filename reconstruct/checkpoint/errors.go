package checkpoint

import (
	"fmt"
	"io/fs"

	"github.com/qbitkit/qbit/qcow2"
)

// A Rule is what has to hold for bitmaps to say what changed since a checkpoint. The
// first four are those of libvirt's documentation on incremental backups.
type Rule string

const (
	// RuleTopmost: the topmost image has the bitmap.
	RuleTopmost Rule = "topmost"
	// RuleGap: from there down, every image has it until the last that has it.
	RuleGap Rule = "gap"
	// RuleRecording: all of them record; or, in the older design, descendants of
	// the checkpoint took over where it ended.
	RuleRecording Rule = "recording"
	// RuleInUse: none of them is in use.
	RuleInUse Rule = "in-use"
	// RuleStale: no program that knows no bitmaps has written to the image since.
	RuleStale Rule = "stale"
	// RuleBroken: the directory, and the bitmap, can be read.
	RuleBroken Rule = "broken"
	// RuleWhole: all images of the chain are known.
	RuleWhole Rule = "whole-chain"
	// RuleSuccessor: a bitmap that does not record is followed by that of every
	// checkpoint which came after its own (the older design).
	RuleSuccessor Rule = "successor"
	// RuleOrigin: the lowest image that has the bitmap is the one that was active when
	// the checkpoint was made, where its document and the names of the images tell.
	RuleOrigin Rule = "origin"
	// RulePart: the disk has a part in the checkpoint.
	RulePart Rule = "part"
)

// A RuleError says which rule keeps bitmaps from telling what changed since a
// checkpoint. It wraps qcow2.ErrBitmapInUse, qcow2.ErrBitmapsStale, fs.ErrNotExist
// (RuleTopmost where no image has the bitmap) or what could not be read.
type RuleError struct {
	Rule       Rule
	Checkpoint string // what was asked for
	Bitmap     string // the bitmap that it is about; any text
	// Layer is the image that it is about: 0 is the topmost.
	Layer int
	// Below is, for RuleTopmost and RuleGap, an image further down that has the
	// bitmap; -1: none has.
	Below int
	Err   error
}

func (e *RuleError) Unwrap() error {
	if e.Err == nil && e.Rule == RuleTopmost && e.Below < 0 {
		return fs.ErrNotExist
	}
	return e.Err
}

func (e *RuleError) Error() string {
	return fmt.Sprintf("what changed since checkpoint %.100q is not known: %s", e.Checkpoint, e.what())
}

// what is the rule that does not hold, in words.
func (e *RuleError) what() string {
	image := layerName(e.Layer)
	switch e.Rule {
	case RuleTopmost:
		if e.Below < 0 {
			return fmt.Sprintf("no image of the disk has a bitmap %.100q", e.Bitmap)
		}
		return fmt.Sprintf("%s has no bitmap %.100q, and %s has: what was written since that one was the topmost is not recorded", image, e.Bitmap, layerName(e.Below))
	case RuleGap:
		return fmt.Sprintf("%s has no bitmap %.100q, but images above and below it have: what was written to it is not recorded", image, e.Bitmap)
	case RuleRecording:
		return fmt.Sprintf("in %s bitmap %.100q does not record, and no checkpoint after it took over", image, e.Bitmap)
	case RuleSuccessor:
		return fmt.Sprintf("%s has no bitmap %.100q, which has to go on where one before it ended", image, e.Bitmap)
	case RuleInUse, RuleStale, RuleBroken:
		return fmt.Sprintf("in %s bitmap %.100q cannot be trusted: %v", image, e.Bitmap, e.Err)
	case RuleWhole:
		return fmt.Sprintf("the backing file of %s is not there to be looked at, and may have a bitmap %.100q too", image, e.Bitmap)
	case RuleOrigin:
		return fmt.Sprintf("%s was active when it was made, and has no bitmap %.100q: what was written to it afterwards is not recorded", image, e.Bitmap)
	case RulePart:
		return "the disk has no part in it"
	}
	return string(e.Rule)
}

// layerName is how an image of a chain is called in messages.
func layerName(layer int) string {
	switch layer {
	case 0:
		return "the topmost image"
	case 1:
		return "the image below the topmost"
	}
	return fmt.Sprintf("the image %d below the topmost", layer)
}

// trustRule is the rule that a bitmap in an image breaks by itself.
func trustRule(img *qcow2.Image, info qcow2.BitmapInfo) (Rule, error) {
	switch {
	case img.BitmapsStale():
		return RuleStale, qcow2.ErrBitmapsStale
	case info.InUse:
		return RuleInUse, qcow2.ErrBitmapInUse
	}
	return "", nil
}
