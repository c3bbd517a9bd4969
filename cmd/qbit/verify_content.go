package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/manifest"
	"github.com/qbitkit/qbit/reconstruct/plan"
)

// A content is what is known of the content of a point that was sealed.
type content struct {
	view *manifest.View
	bad  []reconstruct.ChunkRange // what differs
	same bool                     // bad is all that differs
}

// compareContent compares the content of points with the manifest, each after its
// parent, and ends their verdicts.
func (v *verifier) compareContent(ctx context.Context) error {
	known := map[*plan.Backup]*content{}
	for _, p := range v.points {
		if p.sealed != nil && p.route != nil && p.Verdict != plan.Lost {
			if err := v.compare(ctx, p, known); err != nil {
				return err
			}
		}
		v.endVerdict(p)
	}
	return nil
}

// compare compares one point: by its files, or else by its chunks.
func (v *verifier) compare(ctx context.Context, p *pointReport, known map[*plan.Backup]*content) error {
	e, err := expect(v.m, p.disk, p.route)
	if errors.Is(err, errSealedSize) {
		p.Sealed = sealedOther
		p.lose("%v", err)
		return nil
	}
	if err != nil { // the manifest is broken, and says nothing of the backup
		v.bad = true
		p.note("%s: %v", v.manifestName(), err)
		return nil
	}
	c := &content{view: e.views[len(e.views)-1]}
	if e.moved != "" {
		p.note("%s", e.moved)
	}
	if v.sameFiles(p, e) {
		p.Sealed, c.same = sealedFiles, true
		known[p.backup] = c
		if !v.k.chunks && !(v.k.sha256 && p.SHA256 != "") {
			return nil
		}
	}
	err = v.compareChunks(ctx, p, c, known)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		p.Sealed = sealedOpen
		p.lose("its content cannot be read: %v", err)
		return nil
	}
	known[p.backup] = c
	return nil
}

// sameFiles says that all files on the way to a point are those that were sealed, and
// stand on each other as they did.
func (v *verifier) sameFiles(p *pointReport, e *expectation) bool {
	if e.moved != "" {
		return false
	}
	for i, b := range p.route {
		f := v.byName[b.Source.String()]
		if e.views[i] == nil || f.Sealed == nil || !*f.Sealed || len(e.views[i].Point().Files) != 1 {
			return false
		}
	}
	return true
}

// compareChunks reads the content of a point and compares it with the manifest.
func (v *verifier) compareChunks(ctx context.Context, p *pointReport, c *content, known map[*plan.Backup]*content) error {
	o, err := v.k.newOpener(v.c)
	if err != nil {
		return err
	}
	defer o.close()
	ch, err := o.openRoute(v.s, p.route)
	if err != nil {
		return err
	}
	m, size := newMeter(v.c, &v.k.progressFlags, "compare", c.view.Size()), float64(c.view.Size())
	defer m.clearLine()
	opts := &reconstruct.VerifyOptions{Memory: int64(v.k.memory),
		Progress: func(p reconstruct.Progress) { m.Set(int64(size * float64(p.Done) / float64(max(p.Total, 1)))) }}
	if n := len(p.route); n > 1 {
		if parent := known[p.route[n-2]]; parent != nil && stoodOn(p.sealed, parent) {
			opts.Parent, opts.Bad = true, parent.bad
		}
	}
	var first *reconstruct.ChunkError
	opts.Differs = func(e *reconstruct.ChunkError) error {
		if first == nil && !holdsChunk(opts.Bad, e.Chunk) {
			first = e
		}
		return nil
	}
	if c.bad, err = reconstruct.VerifyPoint(ctx, ch.links, c.view, opts); err != nil {
		return err
	}
	m.Finish()
	c.same = true
	p.tellChunks(c.bad, opts.Bad, first)
	if p.Sealed == sealedChunks && v.k.sha256 && p.SHA256 != "" {
		return p.compareSHA256(ctx, ch, int64(v.k.memory))
	}
	return nil
}

// stoodOn says that a point was sealed onto the one that is known.
func stoodOn(p *manifest.Point, parent *content) bool {
	return parent.same && p.Parent != nil && p.Parent.ID == parent.view.Point().ID
}

func holdsChunk(all []reconstruct.ChunkRange, chunk int64) bool {
	i, found := slices.BinarySearchFunc(all, chunk, func(r reconstruct.ChunkRange, c int64) int {
		switch {
		case r.End() <= c:
			return -1
		case r.First > c:
			return 1
		}
		return 0
	})
	return found && i < len(all)
}

// tellChunks says what differs: what did not already as of the parent.
func (p *pointReport) tellChunks(bad, before []reconstruct.ChunkRange, first *reconstruct.ChunkError) {
	p.Sealed = sealedChunks
	if len(bad) == 0 {
		return
	}
	p.Sealed = sealedOther
	count := int64(0)
	for _, r := range bad {
		count += r.Count
	}
	switch n := len(p.route); {
	case first == nil:
		p.lose("%d chunks are not what was sealed, as in the point before, %s", count, p.route[n-2].Point)
	case len(before) > 0 || n == 1:
		p.lose("%d chunks are not what was sealed; the first that differs only from %s on: %v", count, p.ID, first)
	default:
		p.lose("%d chunks are not what was sealed, and below %s they were; the first: %v", count, p.ID, first)
	}
}

// compareSHA256 compares the sha256 of the whole content.
func (p *pointReport) compareSHA256(ctx context.Context, ch *chain, memory int64) error {
	res, err := reconstruct.Copy(ctx, nil, ch.disk, &reconstruct.CopyOptions{Memory: memory, Digests: []string{reconstruct.SHA256}})
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(res.Digests[0].Sum); got != p.SHA256 {
		p.Sealed = sealedOther
		p.lose("the sha256 of the content is %s, and was %s when it was sealed, although every chunk has its xxHash: somebody changed it on purpose", got, p.SHA256)
	}
	return nil
}

// endVerdict adds what reading the files has shown.
func (v *verifier) endVerdict(p *pointReport) {
	for _, b := range p.route {
		f := v.byName[b.Source.String()]
		switch {
		case f.State == fileSound:
		case f.State == fileDamaged && p.Sealed != sealedChunks:
			p.lose("%s: %s", f.File, f.worst())
		case f.State == fileDamaged:
			p.doubt("%s: %s; but every chunk of this point is what was sealed", f.File, f.worst())
		default:
			p.doubt("%s: %s", f.File, f.worst())
		}
	}
}

// worst is the first finding that made a file what it is.
func (f *fileReport) worst() string {
	for _, found := range f.Findings {
		if found.State == f.State {
			return found.Text
		}
	}
	return string(f.State)
}

// errLost: a point cannot be restored.
var errLost = errors.New("not every point can be restored")

func (v *verifier) verdict() error {
	lost := 0
	for _, p := range v.points {
		if p.Verdict == plan.Lost {
			lost++
		}
	}
	name := escapeName(v.s.path)
	switch {
	case lost > 0:
		return badData{fmt.Errorf("%s: %w: %d of %d cannot", name, errLost, lost, len(v.points))}
	case v.bad:
		return badData{fmt.Errorf("%s: the manifest is broken", escapeName(v.manifestName()))}
	}
	for _, c := range v.covers {
		if c.Missing > 0 {
			return badData{fmt.Errorf("%s: it does not hold all that changed", escapeName(c.Link))}
		}
	}
	return nil
}
