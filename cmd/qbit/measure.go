package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/qcow2"
)

func measureVerb() verb {
	return verb{
		name:  "measure",
		args:  "SRC | --size N",
		short: "say how large a new image will be",
		long:  measureHelp,
		new:   func() command { return new(measureCommand) },
	}
}

const measureHelp = `Prints how large the file of a new image has to be allowed to grow, for qbit convert
of SRC, or for an empty disk of N bytes with --size. Nothing is written, and of SRC
only the tables are read. The figures are those of qemu-img measure.

  required        enough for what SRC holds now: converting it never needs more
  fully allocated enough for any content of the disk, once the guest writes to it
  bitmaps         what its bitmaps take on top of that, with convert --bitmaps

A raw file counts as large as its disk, for filesystems without holes. An image with
a backing file may have to hold everything. Compressed clusters count as plain ones:
how well they compress is not known before. With preallocation the space is all
needed at once. The bytes of an external data file are counted too.

-o takes a list NAME=VALUE,NAME=VALUE as for qbit create and convert; -o help prints
the names. With -O raw, which is the default as with qemu-img, few of them count.

` + diskHelp + `

` + refHelp

// measureCommand is `qbit measure`.
type measureCommand struct {
	sourceFlags
	outputFlag
	to       string
	options  []string
	size     sizeValue
	given    func() bool // --size is
	snapshot string
}

func (m *measureCommand) setFlags(fs *pflag.FlagSet) {
	m.to = formatRaw
	addChoice(fs, &m.to, "output-format", "O", "the format of the new image, `FMT`: raw or qcow2", formatRaw, formatQcow2)
	fs.StringArrayVarP(&m.options, "options", "o", nil, "options of the new image, `LIST`: NAME=VALUE,…; -o help\nprints them; may be repeated")
	fs.Var(&m.size, "size", "measure an empty disk of `SIZE`")
	m.given = func() bool { return fs.Changed("size") }
	fs.StringVarP(&m.snapshot, "snapshot", "l", "", "measure the internal snapshot `SNAPSHOT` of SRC, by ID or\nname; snapshot.id=ID or snapshot.name=NAME says which")
	m.outputFlag.register(fs)
	m.sourceFlags.register(fs)
}

func (m *measureCommand) run(ctx context.Context, c *console, args []string) error {
	if wantsOptionHelp(m.options) {
		printOptionHelp(c.out, m.to)
		return nil
	}
	options, err := parseImageOptions(m.to, m.options)
	switch {
	case err != nil:
		return err
	case m.given() == (len(args) == 1) || len(args) > 1:
		return usagef("measure takes one SRC, or --size N")
	case m.given() && m.snapshot != "":
		return usagef("-l %s is a snapshot of SRC, and does not go with --size", escapeName(m.snapshot))
	case m.given() && m.size < 0:
		return usagef("--size %d: it is negative", m.size)
	case m.given():
		return m.print(c, m.measure(&options, int64(m.size), 0))
	}
	o, err := m.newOpener(c)
	if err != nil {
		return err
	}
	defer o.close()
	o.wholeSectors = true
	return m.measureDisk(ctx, c, o, &options, args)
}

// A measureReport is what --output=json prints, with qemu-img's names.
type measureReport struct {
	Bitmaps  *int64 `json:"bitmaps,omitempty"`
	Required int64  `json:"required"`
	Full     int64  `json:"fully-allocated"`
	err      error
}

// measure is the report of a disk of which used clusters hold something.
func (m *measureCommand) measure(options *imageOptions, size, used int64) measureReport {
	if m.to == formatRaw {
		whole := (size + 511) &^ 511
		return measureReport{Required: whole, Full: whole}
	}
	l := options.layout(size)
	sum, err := l.Measure(used)
	if err != nil {
		return measureReport{err: usageError{err}}
	}
	return measureReport{Required: sum.Required, Full: sum.Full}
}

// measureDisk measures SRC.
func (m *measureCommand) measureDisk(ctx context.Context, c *console, o *opener, options *imageOptions, args []string) error {
	convert := convertCommand{snapshot: m.snapshot}
	src, err := convert.openSources(o, args)
	if err != nil {
		return err
	}
	ch := src.chains[0]
	if m.to == formatRaw {
		return m.print(c, m.measure(options, ch.disk.Size(), 0))
	}
	cluster := options.clusterSize
	if cluster == 0 {
		cluster = qcow2.DefaultClusterSize
	}
	used, err := ch.usedClusters(ctx, cluster)
	if err != nil {
		return nameLayer(ch, err)
	}
	if options.backing.Name != "" {
		used = (ch.disk.Size() + cluster - 1) / cluster // what the backing file has is not known
	}
	rep := m.measure(options, ch.disk.Size(), used)
	if rep.err == nil && options.version != 2 {
		rep.Bitmaps, err = src.bitmapBytes(cluster)
	}
	if err != nil {
		return err
	}
	return m.print(c, rep)
}

// usedClusters is how many clusters of a new image would hold something of the disk.
func (ch *chain) usedClusters(ctx context.Context, cluster int64) (used int64, err error) {
	last := int64(-1) // the last cluster that was counted
	add := func(e mapEntry) error {
		if !e.data || e.zero || e.length == 0 {
			return nil
		}
		first, end := max(last+1, e.start/cluster), (e.start+e.length-1)/cluster
		used += max(0, end-first+1)
		last = max(last, end)
		return ctx.Err()
	}
	for e, err := range ch.disk.Extents(0, ch.disk.Size()) {
		if err == nil {
			err = ch.mapExtent(e, add)
		}
		if err != nil {
			return 0, err
		}
	}
	return used, ctx.Err()
}

// bitmapBytes is how much the bitmaps of the source take in an image with clusters of
// that size; nil where it can have none.
func (s *convertSource) bitmapBytes(cluster int64) (*int64, error) {
	layers := s.chains[0].layers
	l := layers[len(layers)-1]
	if l.image == nil || l.image.Header().Version == 2 {
		return nil, nil
	}
	all, err := l.image.Bitmaps()
	if err != nil {
		return nil, fmt.Errorf("%s: its bitmaps: %w", escapeName(l.path), err)
	}
	n := qcow2.MeasureBitmaps(all, l.disk.Size(), cluster)
	return &n, nil
}

func (m *measureCommand) print(c *console, r measureReport) error {
	if r.err != nil {
		return r.err
	}
	if m.json() {
		return json.NewEncoder(c.out).Encode(r)
	}
	fmt.Fprintf(c.out, "required size: %d\nfully allocated size: %d\n", r.Required, r.Full)
	if r.Bitmaps != nil {
		fmt.Fprintf(c.out, "bitmaps size: %d\n", *r.Bitmaps)
	}
	return nil
}
