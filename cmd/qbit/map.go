package main

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/qcow2"
)

func mapVerb() verb {
	return verb{
		name:  "map",
		args:  "DISK | LINK…",
		short: "say where every range of a disk is stored",
		long:  mapHelp,
		new:   func() command { return new(mapCommand) },
	}
}

const mapHelp = `Says for every range of a disk whether it is data, compressed, zero or absent,
which layer of the chain decides that, and where in which file the bytes are.

With --output=json the result is that of qemu-img map --output=json. The table for
people leaves out what is absent and ends with sums. A link given on its own
is mapped on its own: what is absent in an increment did not change.

` + diskHelp + `
Several arguments are the links of one chain, oldest first.

` + refHelp + `
A backing file that is not allowed is left out of the map, with a note.`

// mapCommand is `qbit map`.
type mapCommand struct {
	sourceFlags
	outputFlag
	start, length sizeValue
}

func (m *mapCommand) setFlags(fs *pflag.FlagSet) {
	m.outputFlag.register(fs)
	fs.VarP(&m.start, "start-offset", "s", "begin at this `OFFSET` of the disk")
	m.length = -1
	fs.VarP(&m.length, "max-length", "l", "map no more than `LENGTH` bytes")
	m.sourceFlags.register(fs)
}

func (m *mapCommand) run(ctx context.Context, c *console, args []string) error {
	if len(args) == 0 {
		return usagef("map takes a DISK, or the links of a chain")
	}
	o, err := m.newOpener(c)
	if err != nil {
		return err
	}
	defer o.close()
	o.wholeSectors = true
	ch, err := o.openChain(parseDisks(args), refsAllowed)
	if err != nil {
		return err
	}
	return m.write(ctx, c, ch)
}

func (m *mapCommand) write(ctx context.Context, c *console, ch *chain) error {
	var w mapWriter = newMapTable(c.out)
	if m.json() {
		w = newMapJSON(c.out)
	}
	merge := mapMerger{out: w}
	start, n := m.span(ch.disk.Size())
	for e, err := range ch.disk.Extents(start, n) {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = ch.mapExtent(e, merge.add)
		}
		if err != nil {
			merge.flush()
			w.abandon()
			return nameLayer(ch, err)
		}
	}
	merge.flush()
	return w.end()
}

// span is the part of the disk that was asked for.
func (m *mapCommand) span(size int64) (start, n int64) {
	start = min(int64(m.start), size)
	n = size - start
	if m.length >= 0 {
		n = min(n, int64(m.length))
	}
	return start, n
}

// A mapEntry is one line of a map: what qemu-img says of a range, and our kind.
type mapEntry struct {
	start, length       int64
	depth               int
	present, zero, data bool
	hasOffset           bool
	offset              int64
	kind                qcow2.Kind
	file                string // that offset is in; "" without one
}

// follows reports that e continues the range before it, as qemu-img sees it.
func (e mapEntry) follows(before mapEntry) bool {
	if before.length == 0 || e.kind != before.kind || e.depth != before.depth || e.present != before.present ||
		e.zero != before.zero || e.data != before.data || e.hasOffset != before.hasOffset || e.file != before.file {
		return false
	}
	return !e.hasOffset || before.offset+before.length == e.offset
}

// mapExtent turns an extent into entries, as qemu-img reports it: what no layer
// holds is not present and zero; and where an image was preallocated, the holes
// of its file count as zero too.
func (ch *chain) mapExtent(e qcow2.Extent, add func(mapEntry) error) error {
	l := ch.layerAt(e.Depth)
	m := mapEntry{start: e.Off, length: e.Len, depth: e.Depth, kind: e.Kind, hasOffset: e.HasHost, offset: int64(e.Host),
		present: e.Kind != qcow2.Absent,
		zero:    e.Kind == qcow2.Zero || e.Kind == qcow2.Absent,
		data:    e.Kind == qcow2.Data || e.Kind == qcow2.Compressed}
	if l == nil {
		return add(m)
	}
	if m.hasOffset {
		m.file = l.storageFile().path
	}
	if e.Kind == qcow2.Data && l.format == formatQcow2 && l.isPreallocated() {
		return splitHoles(l.storageFile(), m, add)
	}
	return add(m)
}

// splitHoles divides an entry of data where its file has holes.
func splitHoles(f *imageFile, m mapEntry, add func(mapEntry) error) error {
	for m.length > 0 {
		data, end := nextRun(f, m.offset, m.offset+m.length)
		part := m
		part.length, part.zero = end-m.offset, !data
		if err := add(part); err != nil {
			return err
		}
		m.start, m.offset, m.length = m.start+part.length, end, m.length-part.length
	}
	return nil
}

// layerAt is the layer that an extent of the chain's disk has as its depth: the
// newest link is 0, and below the oldest link come its backing files.
func (ch *chain) layerAt(depth int) *layer {
	newest := len(ch.layers) - 1
	if depth < newest {
		return ch.layers[newest-depth]
	}
	l := ch.layers[0]
	for depth -= newest; depth > 0 && l != nil; depth-- {
		l = l.backing
	}
	return l
}

// storageFile is the file that a layer's data stands in.
func (l *layer) storageFile() *imageFile {
	if l.data != nil {
		return l.data
	}
	return l.file
}

// A mapMerger joins entries that follow each other.
type mapMerger struct {
	out mapWriter
	cur mapEntry
}

func (m *mapMerger) add(e mapEntry) error {
	if e.follows(m.cur) {
		m.cur.length += e.length
		return nil
	}
	err := m.flush()
	m.cur = e
	return err
}

func (m *mapMerger) flush() error {
	e := m.cur
	m.cur = mapEntry{}
	if e.length == 0 {
		return nil
	}
	return m.out.entry(e)
}
