package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
)

// A chain is a disk that a verb works on: one image or raw disk, or a full backup
// with increments. Its files belong to the opener.
type chain struct {
	links  []reconstruct.Link
	layers []*layer // one a link
	disk   qcow2.Disk
}

// openChain opens the links of a DISK, or of several arguments, oldest first.
// Backing files are only opened for the first link, and there as mode says: what
// the others name is the disk as it is today, not the backup before them.
func (o *opener) openChain(args []linkArg, mode refMode) (*chain, error) {
	ch := &chain{}
	for i, arg := range args {
		if i > 0 {
			mode = refsLink
		}
		l, err := o.open(arg, mode)
		if err != nil {
			return nil, err
		}
		if err := ch.refuseTwice(l); err != nil {
			return nil, err
		}
		ch.layers = append(ch.layers, l)
		ch.links = append(ch.links, o.link(l, i > 0))
	}
	if len(ch.links) == 1 {
		ch.disk = ch.links[0].Disk
		return ch, nil
	}
	var err error
	ch.disk, err = reconstruct.Point(ch.links)
	return ch, err
}

// refuseTwice refuses a file that is a link of the chain already.
func (ch *chain) refuseTwice(l *layer) error {
	for i, before := range ch.layers {
		if os.SameFile(before.file.info, l.file.info) {
			return &reconstruct.ChainError{Link: l.name, Index: len(ch.layers), Msg: "the same file stands in the chain twice",
				Found: fmt.Sprintf("link %d (%q) before", i+1, before.name)}
		}
	}
	return nil
}

// link is a layer as a link of a chain; increment says that it is not the first.
func (o *opener) link(l *layer, increment bool) reconstruct.Link {
	link := reconstruct.Link{Name: l.name, Disk: l.disk}
	switch {
	case !increment:
	case l.format == formatRaw:
		link.Disk, link.Raw, link.Lossy = o.rawDisk(l.file, true), true, "a raw file"
	case l.image != nil && l.image.Header().Version == 2 && l.image.Backing() == nil:
		link.Lossy = "qcow2 version 2 without a backing file"
	}
	return link
}

// openDisk opens one DISK argument, whole: every file that its bytes need.
func (o *opener) openDisk(arg string) (*chain, error) {
	args := parseDisk(arg, pathExists)
	ch, err := o.openChain(args, refsNeeded)
	if len(args) > 1 {
		err = notFull(args[0], err)
	}
	return ch, err
}

// openLinks opens the links that the arguments name, oldest first, whole.
func (o *opener) openLinks(args []string) (*chain, error) {
	links := parseDisks(args)
	if len(links) == 0 {
		return nil, usagef("no disk is named")
	}
	ch, err := o.openChain(links, refsNeeded)
	if len(links) > 1 {
		err = notFull(links[0], err)
	}
	return ch, err
}

// notFull explains why the first of several links cannot be opened without its
// backing file: most likely it is an increment, and the chain was cut.
func notFull(first linkArg, err error) error {
	var refused *refusedError
	if !errors.As(err, &refused) || refused.ref.Kind != qcow2.RefBacking {
		return err
	}
	return &reconstruct.ChainError{Link: first.name, Msg: "the oldest link names a backing file, so it is no full backup on its own",
		Missing: "the full backup before it", Found: err.Error()}
}

// openAlone opens one image for what it says of itself, its bitmaps for example;
// its backing file stays closed.
func (o *opener) openAlone(arg string) (*layer, error) {
	return o.open(parseLink(arg, pathExists), refsOwn)
}
