package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/reconstruct"
)

func compareVerb() verb {
	return verb{
		name:  "compare",
		args:  "DISK DISK",
		short: "say whether two disks hold the same, and where not",
		long:  compareHelp,
		exits: compareExits,
		new:   func() command { return new(compareCommand) },
		status: func(err error) int {
			if errors.Is(err, errDiffer) {
				return 1
			}
			return max(2, statusOf(err))
		},
	}
}

const compareHelp = `Compares what a guest would read from two disks, and prints the ranges that
differ, in bytes. How the bytes are stored does not matter: a hole, a zero cluster
and stored zeros are the same. Where one disk is longer than the other, the rest of
it must be zero; with -s the sizes must be the same.

` + diskHelp + `

` + refHelp

const compareExits = `0  the disks hold the same
1  they differ
2  could not compare them: a file is missing, in use or not allowed, or its
   data is bad
3  the command line is wrong`

// errDiffer is the status of two disks that differ. It was said in full.
var errDiffer = silent{errors.New("the disks differ")}

// compareCommand is `qbit compare`.
type compareCommand struct {
	sourceFlags
	outputFlag
	progressFlags
	strict  bool
	format2 string
}

func (d *compareCommand) setFlags(fs *pflag.FlagSet) {
	fs.BoolVarP(&d.strict, "strict", "s", false, "different sizes are a difference")
	d.outputFlag.register(fs)
	d.progressFlags.register(fs)
	d.sourceFlags.register(fs)
	fs.VarP(choice{&d.format2, []string{formatQcow2, formatRaw}}, "second-format", "F", "the format of the second disk, `FMT`; -f is then that of\nthe first")
}

func (d *compareCommand) run(ctx context.Context, c *console, args []string) error {
	if len(args) != 2 {
		return usagef("compare takes two disks; the links of a chain are joined by '+'")
	}
	var disks [2]*chain
	for i, arg := range args {
		source := d.sourceFlags
		if i == 1 && d.format2 != "" {
			source.format = d.format2
		}
		o, err := source.newOpener(c)
		if err != nil {
			return err
		}
		defer o.close()
		if disks[i], err = o.openDisk(arg); err != nil {
			return err
		}
	}
	return d.compare(ctx, c, disks[0], disks[1])
}

func (d *compareCommand) compare(ctx context.Context, c *console, a, b *chain) error {
	sizeA, sizeB := a.disk.Size(), b.disk.Size()
	out := differences{c: c, json: d.json(), quiet: d.quiet}
	if d.strict && sizeA != sizeB {
		return out.end(sizeA, sizeB, true)
	}
	if sizeA != sizeB && !d.quiet {
		c.note("the sizes differ: %d and %d bytes", sizeA, sizeB)
	}
	m := newMeter(c, &d.progressFlags, "compare", max(sizeA, sizeB))
	defer m.clearLine()
	out.meter = m
	opts := &reconstruct.CompareOptions{Progress: func(p reconstruct.Progress) { m.Set(p.Done) }}
	for r, err := range reconstruct.Compare(ctx, a.disk, b.disk, opts) {
		if err != nil {
			return err
		}
		if err := out.add(r); err != nil {
			return err
		}
	}
	m.Finish()
	return out.end(sizeA, sizeB, false)
}

// differences prints what differs: for people while it is found, as JSON in one
// object that ends with the verdict.
type differences struct {
	c           *console
	json, quiet bool
	meter       *meter
	ranges      int64
	bytes       int64
}

func (d *differences) add(r bitmap.Range) error {
	d.ranges++
	d.bytes += r.Len
	var err error
	switch {
	case d.json && d.ranges == 1:
		_, err = fmt.Fprintf(d.c.out, `{"ranges": [{"start": %d, "length": %d}`, r.Off, r.Len)
	case d.json:
		_, err = fmt.Fprintf(d.c.out, ",\n"+`{"start": %d, "length": %d}`, r.Off, r.Len)
	case d.quiet:
	default:
		d.meter.clearLine()
		if d.ranges == 1 {
			fmt.Fprintf(d.c.out, "%20s %14s\n", "differ at", "bytes")
		}
		_, err = fmt.Fprintf(d.c.out, "%20d %14d\n", r.Off, r.Len)
	}
	return err
}

// end gives the verdict.
func (d *differences) end(sizeA, sizeB int64, sizesDiffer bool) error {
	same := d.ranges == 0 && !sizesDiffer
	if d.json {
		if d.ranges == 0 {
			fmt.Fprint(d.c.out, `{"ranges": [`)
		}
		b, err := json.Marshal(compareVerdict{same, d.bytes, sizeA, sizeB})
		if err != nil {
			return err
		}
		fmt.Fprintf(d.c.out, "], %s\n", b[1:])
	} else if !d.quiet {
		fmt.Fprintln(d.c.out, d.verdict(same, sizesDiffer, sizeA, sizeB))
	}
	if same {
		return nil
	}
	return errDiffer
}

// A compareVerdict ends the JSON of compare.
type compareVerdict struct {
	Same  bool  `json:"identical"`
	Bytes int64 `json:"bytes-different"`
	SizeA int64 `json:"first-size"`
	SizeB int64 `json:"second-size"`
}

func (d *differences) verdict(same, sizesDiffer bool, sizeA, sizeB int64) string {
	switch {
	case same:
		return "The disks are identical."
	case sizesDiffer:
		return fmt.Sprintf("The disks differ: their sizes are %d and %d bytes.", sizeA, sizeB)
	}
	return fmt.Sprintf("The disks differ in %d bytes, in %d ranges.", d.bytes, d.ranges)
}
