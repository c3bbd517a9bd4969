package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/qbitkit/qbit/reconstruct"
)

// applyChanged gives a link the bitmap that LINK=IMAGE:BITMAP names.
func (o *opener) applyChanged(ch *chain, arg string, strict bool) error {
	link, source, err := findLink(ch.links, arg)
	if err != nil {
		return err
	}
	if link.Changed != nil {
		return usagef("--changed %q: the link %s has a bitmap already", arg, escapeName(link.Name))
	}
	path, name, err := splitBitmap(source, pathExists)
	if err != nil {
		return usagef("--changed %q: %w", arg, err)
	}
	l, err := o.openAlone(path)
	if err != nil {
		return err
	}
	if l.image == nil {
		return usagef("--changed %q: %s is raw and has no bitmaps", arg, escapeName(path))
	}
	return o.loadChanged(link, l, name, strict)
}

// loadChanged loads the bitmap of a link. One that was recording when its image
// was closed holds later changes too, which would come back as zeros.
func (o *opener) loadChanged(link *reconstruct.Link, l *layer, name string, strict bool) error {
	b, err := l.image.LoadBitmap(name)
	if err != nil {
		return fmt.Errorf("%s: %w", escapeName(l.path), err)
	}
	info, err := l.image.BitmapInfo(name)
	if err != nil {
		return fmt.Errorf("%s: %w", escapeName(l.path), err)
	}
	if info.Auto {
		err := badData{fmt.Errorf("%s: bitmap %q is recording: it marks all that changed since it was made, not only up to the backup %s; "+
			"what changed only later and is absent there comes back as zeros",
			escapeName(l.path), name, escapeName(link.Name))}
		if strict {
			return err
		}
		o.c.warn("%v", err)
	}
	if b.Size() > link.Disk.Size() { // the disk grew after that backup
		if err := b.Resize(link.Disk.Size(), false); err != nil {
			return err
		}
	}
	link.Changed = b
	return nil
}

// findLink finds the link that LINK=… means: by the name that the command line
// has, or else by its file name. Both may hold '='.
func findLink(links []reconstruct.Link, arg string) (*reconstruct.Link, string, error) {
	whole := func(name string) string { return name }
	for _, form := range []func(string) string{whole, filepath.Base} {
		found, rest := -1, ""
		for i := range links {
			r, ok := strings.CutPrefix(arg, form(links[i].Name)+"=")
			if ok && found >= 0 {
				return nil, "", usagef("--changed %q: it means both %s and %s", arg,
					escapeName(links[found].Name), escapeName(links[i].Name))
			}
			if ok {
				found, rest = i, r
			}
		}
		switch {
		case found == 0:
			return nil, "", usagef("--changed %q: the first link is the full backup, and holds all", arg)
		case found > 0:
			return &links[found], rest, nil
		}
	}
	return nil, "", usagef("--changed %q: it is LINK=IMAGE:BITMAP, with LINK an increment as you named it", arg)
}

// splitBitmap splits IMAGE:BITMAP. Both may hold ':': the longest name of a file
// that exists wins.
func splitBitmap(arg string, exists func(string) bool) (path, name string, err error) {
	for i := len(arg) - 1; i > 0; i-- {
		if arg[i] == ':' && exists(arg[:i]) {
			return arg[:i], arg[i+1:], nil
		}
	}
	return "", "", fmt.Errorf("there is no file IMAGE for which %q is IMAGE:BITMAP", arg)
}
