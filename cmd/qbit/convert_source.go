package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/qbitkit/qbit/qcow2"
)

// A convertSource is what is converted.
type convertSource struct {
	chains []*chain
	disk   qcow2.Disk
}

// openSources opens all SRC.
func (v *convertCommand) openSources(o *opener, args []string) (*convertSource, error) {
	o.wholeSectors = len(args) > 1
	src := &convertSource{}
	for _, arg := range args {
		links := parseDisk(arg, pathExists)
		if v.snapshot != "" {
			if len(links) != 1 || links[0].snapshot != "" || len(args) != 1 {
				return nil, usagef("-l %s: it is for one image, named without its snapshot", escapeName(v.snapshot))
			}
			links[0].snapshot = snapshotName(v.snapshot)
		}
		ch, err := o.openChain(links, refsNeeded)
		if len(links) > 1 {
			err = notFull(links[0], err)
		}
		if err != nil {
			return nil, err
		}
		src.chains = append(src.chains, ch)
	}
	src.disk = src.chains[0].disk
	if len(args) > 1 {
		src.disk = joinDisks(src.chains)
		o.c.note("the %d disks are put one behind the other; a chain of backups is one SRC, its links joined by '+'", len(args))
	}
	return src, nil
}

// snapshotName reads what -l takes, as qemu-img does.
func snapshotName(arg string) string {
	for _, key := range []string{"snapshot.id=", "snapshot.name="} {
		if name, ok := strings.CutPrefix(arg, key); ok {
			return name
		}
	}
	return arg
}

// nameError puts the name of a single source before an error that names no file.
func (s *convertSource) nameError(err error) error {
	if len(s.chains) > 1 {
		return err
	}
	return nameLayer(s.chains[0], err)
}

// top is the image whose bitmaps describe the disk.
func (s *convertSource) top() (*layer, error) {
	layers := s.chains[0].layers
	l := layers[len(layers)-1]
	switch {
	case l.image == nil:
		return nil, usagef("--bitmaps: %s is raw and has no bitmaps", escapeName(l.name))
	case l.snapshot != "":
		return nil, usagef("--bitmaps: bitmaps describe the disk as it is, and not its snapshot %s", escapeName(l.snapshot))
	}
	return l, nil
}

// carryBitmaps copies the bitmaps of the source into a new image, and returns their
// names.
func (v *convertCommand) carryBitmaps(c *console, src *convertSource, image *newImage) ([]string, error) {
	l, err := src.top()
	if err != nil {
		return nil, err
	}
	all, err := l.image.Bitmaps()
	if err != nil {
		return nil, v.broken(c, fmt.Errorf("%s: its bitmaps: %w", escapeName(l.path), err))
	}
	var names []string
	for _, info := range all {
		b, err := l.image.LoadBitmap(info.Name)
		if err != nil {
			if err := v.broken(c, fmt.Errorf("%s: %w", escapeName(l.path), err)); err != nil {
				return nil, err
			}
			continue
		}
		if b.Size() != image.size {
			if err := b.Resize(image.size, false); err != nil {
				return nil, err
			}
		}
		if err := image.AddBitmap(info.Name, b, info.Auto); err != nil {
			return nil, fmt.Errorf("bitmap %q: %w", info.Name, err)
		}
		names = append(names, info.Name)
	}
	return names, nil
}

// broken is an error about a bitmap, or a warning where those are to be left out.
func (v *convertCommand) broken(c *console, err error) error {
	if v.skipBroken {
		c.warn("%v; it is left out", err)
		return nil
	}
	return fmt.Errorf("%w; --skip-broken-bitmaps leaves it out", err)
}

// joinedDisks are disks one behind the other, each up to the end of its last sector.
type joinedDisks struct {
	disks []qcow2.Disk
	ends  []int64
}

func joinDisks(chains []*chain) *joinedDisks {
	j := &joinedDisks{}
	end := int64(0)
	for _, ch := range chains {
		end += (ch.disk.Size() + 511) &^ 511
		j.disks, j.ends = append(j.disks, ch.disk), append(j.ends, end)
	}
	return j
}

// Size implements qcow2.Disk.
func (j *joinedDisks) Size() int64 { return j.ends[len(j.ends)-1] }

// A joinedPart is the range [off, end) of one of the disks, and where it begins among
// all of them.
type joinedPart struct {
	disk         qcow2.Disk
	at, off, end int64
}

// parts yields the parts of [off, end).
func (j *joinedDisks) parts(off, end int64) iter.Seq[joinedPart] {
	return func(yield func(joinedPart) bool) {
		begin := int64(0)
		for i, stop := range j.ends {
			from, to := max(off, begin), min(end, stop)
			if from < to && !yield(joinedPart{j.disks[i], begin, from - begin, to - begin}) {
				return
			}
			begin = stop
		}
	}
}

// ReadAt implements qcow2.Disk.
func (j *joinedDisks) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading at a negative offset (%d)", off)
	}
	end := min(j.Size(), off+int64(len(p)))
	for part := range j.parts(off, end) {
		buf := p[part.at+part.off-off : part.at+part.end-off]
		n, err := part.disk.ReadAt(buf, part.off)
		if n < len(buf) && !errors.Is(err, io.EOF) {
			return int(part.at + part.off - off + int64(n)), err
		}
		clear(buf[n:]) // up to the end of the sector
	}
	if end < off+int64(len(p)) {
		return int(max(0, end-off)), io.EOF
	}
	return len(p), nil
}

// Extents implements qcow2.Disk.
func (j *joinedDisks) Extents(off, n int64) iter.Seq2[qcow2.Extent, error] {
	return func(yield func(qcow2.Extent, error) bool) {
		for part := range j.parts(off, off+n) {
			size := part.disk.Size()
			for e, err := range part.disk.Extents(min(part.off, size), min(part.end, size)-min(part.off, size)) {
				e.Off += part.at
				if !yield(e, err) || err != nil {
					return
				}
			}
			if rest := max(part.off, size); rest < part.end &&
				!yield(qcow2.Extent{Off: part.at + rest, Len: part.end - rest, Kind: qcow2.Zero}, nil) {
				return
			}
		}
	}
}
