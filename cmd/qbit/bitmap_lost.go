package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/qbitkit/qbit/qcow2"
)

// The ways in which bitmaps are lost, beside stateInUse and stateStale.
const (
	stateAbsent          = "absent"
	stateDirectoryBroken = "directory-broken"
	stateVersion2        = "version-2"
	stateBroken          = "broken"
	stateUnsupported     = "unsupported"
	stateUnread          = "unread" // an error of reading, which is not the image's
)

// A bitmapLoss says why a bitmap, or all of an image, cannot be used, and what to
// do about it.
type bitmapLoss struct {
	why, todo string
}

// Every loss ends in the same need.
const newFull = "take a new full backup"

// lossOfImage is what is wrong with all bitmaps of an image in that state.
func lossOfImage(state, path string, err error) *bitmapLoss {
	image := shellWord(path)
	switch state {
	case stateVersion2:
		return &bitmapLoss{"The image is of version 2, which cannot hold bitmaps.",
			fmt.Sprintf("qemu-img amend -f qcow2 -o compat=1.1 %s makes it version 3, and qbit restore -O qcow2 -o NEW %s a copy of version 3; "+
				"then qbit bitmap --add, and %s", image, image, newFull)}
	case stateAbsent:
		return &bitmapLoss{"The image has no bitmap. It does not show whether one was ever saved (QEMU saves the bitmaps of a running guest when it ends in " +
			"good order; when it was killed, those made since it started are not in the image at all), was removed, or was dropped by QEMU because a " +
			"program that knows no bitmaps had written to the image.",
			fmt.Sprintf("qbit bitmap --add %s NAME makes one (with libvirt, a checkpoint does); if there was to be one, %s", image, newFull)}
	case stateStale:
		return &bitmapLoss{"The bitmaps are stale: a program that knows no bitmaps has written to the image since (autoclear bit 0 is clear), and what it " +
			"wrote is not in them. QEMU drops them when it next opens the image for writing.",
			fmt.Sprintf("%s; qbit bitmap --salvage %s NAME shows what was dirty before; qbit bitmap --drop-all %s removes them", newFull, image, image)}
	case stateDirectoryBroken:
		return &bitmapLoss{fmt.Sprintf("The bitmap directory is broken (%v). The guest's data is not affected, but QEMU does not open such an image at all.", err),
			fmt.Sprintf("qbit bitmap --drop-all %s removes all bitmaps, and QEMU opens the image again; then %s", image, newFull)}
	}
	return nil
}

// lossOfBitmap is what is wrong with one bitmap in that state.
func lossOfBitmap(state, path string, info qcow2.BitmapInfo, shared bool, err error) *bitmapLoss {
	where := shellWord(path) + " " + shellWord(info.Name)
	switch state {
	case stateInUse:
		return &bitmapLoss{whyInUse(info, shared),
			fmt.Sprintf("%s; qbit bitmap --salvage %s shows what was dirty at the last clean close; qbit bitmap --remove %s removes it, "+
				"and qbit bitmap --remove --inconsistent %s all that are so", newFull, where, where, shellWord(path))}
	case stateBroken:
		return &bitmapLoss{fmt.Sprintf("What the image holds of it is broken: %v.", err),
			fmt.Sprintf("%s; qbit bitmap --remove %s removes it", newFull, where)}
	case stateUnread:
		return &bitmapLoss{fmt.Sprintf("It could not be read: %v.", err), "try again, and look after the storage"}
	case stateUnsupported:
		return &bitmapLoss{fmt.Sprintf("It cannot be read here: %v. It may well be sound.", err),
			"use it with the program that made it; qbit keeps it as it is"}
	}
	return nil
}

func whyInUse(info qcow2.BitmapInfo, shared bool) string {
	why := "It is in use: the program that had the image open for writing did not close it in good order, it was killed or the host went down. What " +
		"changed since the last clean close is missing, and nobody knows what that is."
	if shared {
		why = "It is in use: either a process has the image open for writing just now, and holds the bitmap, or one did not close the image in good " +
			"order. In the latter case what changed since the last clean close is missing, and nobody knows what that is."
	}
	if !info.Auto {
		why += " It was not recording when it was last saved; QEMU marks those too, and then nothing need be missing."
	}
	return why
}

// explainBitmap adds the image to an error about bitmaps, and what to do about it.
func explainBitmap(path string, err error) error {
	if err == nil {
		return nil
	}
	if hint := bitmapHint(path, err); hint != "" {
		return fmt.Errorf("%s: %w; %s", escapeName(path), err, hint)
	}
	return fmt.Errorf("%s: %w", escapeName(path), err)
}

// bitmapHint is the way out of an error, "" where there is none to tell.
func bitmapHint(path string, err error) string {
	image := shellWord(path)
	var format *qcow2.FormatError
	switch {
	case errors.Is(err, qcow2.ErrBitmapInUse):
		return fmt.Sprintf("qbit bitmap --salvage %s NAME shows its bits as of the last clean close, qbit bitmap --remove %s NAME removes it; %s", image, image, newFull)
	case errors.Is(err, qcow2.ErrBitmapsStale):
		return fmt.Sprintf("qbit bitmap --salvage %s NAME shows what they held, qbit bitmap --drop-all %s removes them; %s", image, image, newFull)
	case errors.As(err, &format) && isDirectory(format):
		return fmt.Sprintf("qbit bitmap --drop-all %s removes all bitmaps; the guest's data is not affected", image)
	case errors.As(err, new(*qcow2.LimitError)):
		return "--limit raises it"
	case format != nil && strings.HasPrefix(format.Structure, "bitmap"):
		return fmt.Sprintf("qbit bitmap --remove %s NAME removes that bitmap; %s", image, newFull)
	case errors.Is(err, qcow2.ErrDirty):
		return fmt.Sprintf("qbit check -r all %s rebuilds its refcounts", image)
	case errors.Is(err, qcow2.ErrCorrupt):
		return fmt.Sprintf("qbit check %s says what is broken, and with -r all mends it; qbit restore can read a copy out of it", image)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("it was never saved, or was removed; qbit bitmap %s lists what there is", image)
	}
	return ""
}

// isDirectory reports what keeps all bitmaps of an image from being read, and not
// only one of them.
func isDirectory(err *qcow2.FormatError) bool {
	switch err.Structure {
	case "bitmaps extension":
		return true
	case "header":
		return err.Field == "autoclear_features"
	case "bitmap directory":
		for _, field := range []string{" flags", " granularity_bits", " bitmap_table_size", " bitmap_table_offset", " name"} {
			if strings.HasSuffix(err.Field, field) {
				return false
			}
		}
		return true
	}
	return false
}

// shellWord is a word as a shell takes it, and safe to print.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r < 0x80 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%=,", r))
	}
	if s != "" && strings.TrimFunc(s, plain) == "" && s[0] != '-' {
		return s
	}
	return "'" + strings.ReplaceAll(escapeName(s), "'", `'\''`) + "'"
}
