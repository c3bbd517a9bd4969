package qcow2

import (
	"fmt"

	"github.com/qbitkit/qbit/bitmap"
)

// A recorder is a bitmap that records, as it stands in the file.
type recorder struct {
	name string
	bits *bitmap.Bitmap
}

// surveyBitmaps finds out which clusters the bitmaps use.
func (g *Guest) surveyBitmaps() error {
	g.s.img, g.s.x.img = g.e.img, g.e.img
	tx, err := newTx(g.e.img)
	if err != nil {
		return err
	}
	if tx.broken != nil && !tx.stale {
		return fmt.Errorf("the bitmaps of the image are broken, so that those which record cannot be marked; "+
			"drop them to change the guest's data: %w", tx.broken)
	}
	c := &commit{session: g.s, tx: tx}
	if tx.broken != nil {
		defer func() { g.s.alloc.atEnd = true }()
	}
	return c.survey()
}

// loadRecording loads the bitmaps that record. Those in use stay so, and stale ones
// stay stale: nobody trusts either.
func (g *Guest) loadRecording() error {
	img := g.e.img
	if img.BitmapsStale() {
		return nil
	}
	list, err := img.Bitmaps()
	if err != nil {
		return err
	}
	for _, info := range list {
		if !info.Auto || info.InUse {
			continue
		}
		bits, err := img.ReadBitmap(info)
		if err != nil {
			return fmt.Errorf("bitmap %.100q records and has to be marked: %w", info.Name, err)
		}
		g.recording = append(g.recording, recorder{info.Name, bits})
	}
	return nil
}

// markAll marks what is dirty in changes.
func (g *Guest) markAll(changes *bitmap.Bitmap) error {
	if changes.Size() != g.e.img.Size() {
		return fmt.Errorf("the changes are of a disk of %d bytes, this one has %d", changes.Size(), g.e.img.Size())
	}
	var list []bitmap.Range
	for r := range changes.Ranges() {
		list = append(list, r)
	}
	return g.mark(list)
}

// mark marks ranges in the bitmaps that record, where they are not marked yet.
func (g *Guest) mark(list []bitmap.Range) error {
	var todo []int
	for i := range g.recording {
		for _, r := range list {
			if at, ok := g.recording[i].bits.NextClean(r.Off); ok && at < r.Off+r.Len {
				todo = append(todo, i)
				break
			}
		}
	}
	if len(todo) == 0 {
		return nil
	}
	tx, err := newTx(g.e.img)
	if err != nil {
		return err
	}
	for _, i := range todo {
		b := &g.recording[i]
		for _, r := range list {
			b.bits.Set(r.Off, r.Len)
		}
		if err := tx.ReplaceBitmap(b.name, b.bits); err != nil {
			return err
		}
	}
	if err := g.commit(&commit{session: g.s, tx: tx}); err != nil {
		return fmt.Errorf("marking bitmaps: %w", err)
	}
	return nil
}

// commit makes a change of bitmaps.
func (g *Guest) commit(c *commit) error {
	if err := c.prepare(); err != nil {
		return err
	}
	if g.e.failed = c.run(); g.e.failed != nil {
		return g.e.failed
	}
	return g.renew()
}

// renew reads the image after a change of its header.
func (g *Guest) renew() error {
	if err := g.s.settle(); err != nil {
		return err
	}
	if err := g.e.changed(g.s.alloc.size); err != nil {
		return err
	}
	var err error
	if g.s.first, err = g.e.img.firstCluster(); err != nil {
		return err
	}
	if err := g.surveyBitmaps(); err != nil {
		return err
	}
	g.view()
	return nil
}

// changed are the ranges that works change.
func (g *Guest) changes(works []work) []bitmap.Range {
	size := g.e.img.geometry.ClusterSize()
	var list []bitmap.Range
	add := func(from, to int64) {
		to = min(to, g.limit)
		if n := len(list); n > 0 && list[n-1].Off+list[n-1].Len == from {
			list[n-1].Len += to - from
		} else if from < to {
			list = append(list, bitmap.Range{Off: from, Len: to - from})
		}
	}
	for i := range works {
		w := &works[i]
		start := w.index * size
		if w.base != baseKeep {
			add(start, start+size)
			continue
		}
		for _, s := range w.segs {
			add(start+s.from, start+s.to)
		}
	}
	return list
}
