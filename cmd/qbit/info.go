package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"
)

func infoVerb() verb {
	return verb{
		name:  "info",
		args:  "IMAGE…",
		short: "say what an image is: header, features, bitmaps, snapshots",
		long:  infoHelp,
		new:   func() command { return new(infoCommand) },
	}
}

const infoHelp = `Says what an image is: its size and format, and for qcow2 the whole header, its
extensions, the features that it uses by name, its snapshots, and its dirty bitmaps
with how much is dirty in each.

With --output=json the result has every key of qemu-img info --output=json, and
under the key "qbit" what only qbit says. With --backing-chain it is a list. A
broken bitmap directory or snapshot table is said, and stops nothing. The
files below an image that cannot be opened are listed with the reason.

An IMAGE is PATH, or raw:PATH for a raw disk; only your word makes a file raw.

` + refHelp

// infoCommand is `qbit info`.
type infoCommand struct {
	sourceFlags
	outputFlag
	chain bool
}

func (i *infoCommand) setFlags(fs *pflag.FlagSet) {
	i.outputFlag.register(fs)
	fs.BoolVar(&i.chain, "backing-chain", false, "also the backing files, down to the last")
	i.sourceFlags.register(fs)
}

func (i *infoCommand) run(ctx context.Context, c *console, args []string) error {
	if len(args) == 0 {
		return usagef("info takes one or more images")
	}
	i.limits.limits = i.limits.tighten(infoLimits)
	if !i.json() {
		more := false
		return i.images(ctx, c, args, func(reports []*infoReport) error {
			if reports[0].Qbit.Error == "" {
				printReports(c.out, reports, more)
				more = true
			}
			return nil
		})
	}
	if len(args) == 1 {
		return i.images(ctx, c, args, func(reports []*infoReport) error {
			if reports[0].Qbit.Error != "" {
				return nil // there is nothing to report but the error
			}
			return writeStream(c.out, i.result(reports))
		})
	}
	var problems error
	err := writeStream(c.out, jsonList(func(yield func(any) bool) {
		problems = i.images(ctx, c, args, func(reports []*infoReport) error {
			yield(i.result(reports))
			return nil
		})
	}))
	return errors.Join(problems, err)
}

// result is what stands for an argument in JSON.
func (i *infoCommand) result(reports []*infoReport) any {
	if !i.chain {
		return reports[0]
	}
	return jsonList(func(yield func(any) bool) {
		for _, r := range reports {
			if !yield(r) {
				return
			}
		}
	})
}

// images gives the reports of every argument to tell, which must be done with them
// when it returns: the lists in them are read from the open images.
func (i *infoCommand) images(ctx context.Context, c *console, args []string, tell func([]*infoReport) error) error {
	var problems []error
	for _, arg := range args {
		if err := ctx.Err(); err != nil {
			return err
		}
		o, err := i.newOpener(c)
		if err != nil {
			return err
		}
		reports, err := i.image(ctx, o, arg)
		problems = append(problems, err, tell(reports))
		o.close()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.Join(problems...)
}

// image reports one argument: the image, and with --backing-chain those below
// it. What cannot be opened has a report too, which says why.
func (i *infoCommand) image(ctx context.Context, o *opener, arg string) ([]*infoReport, error) {
	link := parseLink(arg, pathExists)
	if link.snapshot != "" {
		err := usagef("%s: info takes an image, not a snapshot; it lists them", escapeName(arg))
		return []*infoReport{missingReport(arg, err)}, err
	}
	mode := refsOwn
	if i.chain {
		mode = refsReported
	}
	l, err := o.open(link, mode)
	if err != nil {
		return []*infoReport{missingReport(link.path, err)}, err
	}
	return reportChain(ctx, l, i.chain)
}

// reportChain reports l and, if whole is set, every layer below it. The error is
// what ended the chain early.
func reportChain(ctx context.Context, l *layer, whole bool) ([]*infoReport, error) {
	var reports []*infoReport
	for _, layer := range l.chain() {
		reports = append(reports, reportLayer(ctx, layer))
		if err := layer.closed; err != nil && whole {
			missing := missingReport(fullRefName(layer.path, layer.image.Backing().Name), err)
			missing.Format = layer.image.Backing().Format
			return append(reports, missing), err
		}
	}
	return reports, nil
}

// missingReport stands for an image that could not be opened.
func missingReport(name string, err error) *infoReport {
	return &infoReport{Filename: name, Qbit: &qbitInfo{Error: escapeText(err.Error())}}
}

// writeStream writes a value with lists that are made meanwhile, as writeJSON does.
func writeStream(w io.Writer, v any) error {
	s := newJSONStream(w)
	s.value(v, "")
	return s.end()
}

// writeJSON writes a value as qemu-img does, indented by four.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "    ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}
