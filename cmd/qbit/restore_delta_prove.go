package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/qbitkit/qbit/reconstruct"
)

// prove looks whether the device holds the point that the user says.
func (x *deltaRun) prove(ctx context.Context) error {
	disk, err := x.held()
	if err != nil {
		return err
	}
	name := escapeName(x.target.onto)
	if x.way.trust {
		x.tellProof("%s: not looked at: --trust-from takes it for point %s", name, escapeName(x.names[0]))
		return nil
	}
	opts := &reconstruct.ProveOptions{All: x.way.all, Workers: x.workers, Memory: int64(x.memory), Witnesses: x.witnesses}
	if x.sealBefore != nil {
		opts.From = last(x.sealBefore)
	}
	if x.seal != nil {
		opts.To = last(x.seal)
	}
	m := newMeter(x.c, &x.progressFlags, "compare", disk.Size())
	opts.Progress = func(p reconstruct.Progress) { m.Set(p.Done) }
	x.proof, err = x.delta.Prove(ctx, disk, opts)
	m.clearLine()
	if err != nil {
		return x.notProven(err)
	}
	m.Finish()
	x.tellProof("%s: %s", name, x.proven())
	if x.proof.Mixed > 0 {
		x.c.note("%s: %s are as of %s already: a run before this one did not come to its end", name, formatSize(x.proof.Mixed), escapeName(x.names[1]))
	}
	return nil
}

func (x *deltaRun) tellProof(format string, args ...any) {
	if !x.quiet {
		x.c.note(format, args...)
	}
}

// proven says what was shown of the device, and what was not.
func (x *deltaRun) proven() string {
	how := "the backups"
	if x.proof.Sealed {
		how = "the manifest"
	}
	if x.proof.Read >= x.proof.Size {
		return fmt.Sprintf("all of it (%s) was compared with point %s by %s", formatSize(x.proof.Size), escapeName(x.names[0]), how)
	}
	return fmt.Sprintf("%s of %s were compared with point %s by %s; the rest is taken to be as of that point, and is left as it is",
		formatSize(x.proof.Read), formatSize(x.proof.Size), escapeName(x.names[0]), how)
}

// notProven says what is wrong with the device, and that it is as it was.
func (x *deltaRun) notProven(err error) error {
	var differs *reconstruct.DeviceError
	if !errors.As(err, &differs) {
		return err
	}
	return badData{fmt.Errorf("%s: it does not hold point %s: %w; nothing was written. Name the point that it holds, or leave out --from, and all of it is written",
		escapeName(x.target.onto), escapeName(x.names[0]), err)}
}

// A proofReport is what --output=json says of what the device held before.
type proofReport struct {
	From  string `json:"from"`
	To    string `json:"to"`
	How   string `json:"how"` // "backups", "manifest", "trust"
	Read  int64  `json:"bytes-compared"`
	Mixed int64  `json:"bytes-done-before"`
}

func (x *deltaRun) proofReport() *proofReport {
	p := &proofReport{From: x.names[0], To: x.names[1], How: "trust"}
	if x.proof == nil {
		return p
	}
	p.How, p.Read, p.Mixed = "backups", x.proof.Read, x.proof.Mixed
	if x.proof.Sealed {
		p.How = "manifest"
	}
	return p
}

// reportDelta says what was restored.
func (x *deltaRun) reportDelta(result *reconstruct.Result) error {
	rep := x.newReport(x.to, result)
	rep.Delta = x.proofReport()
	return x.tellReport(x.c, rep, result)
}

// printDelta is the first line of the report of a disk of which only what may differ was
// written.
func (r *restoreReport) printDelta(w io.Writer) {
	fmt.Fprintf(w, "%s: restored %s (%d bytes), %s, from point %s to %s: %s written, %s zeroed\n", escapeName(r.Target),
		formatSize(r.Size), r.Size, r.Format, escapeName(r.Delta.From), escapeName(r.Delta.To), formatSize(r.Written), formatSize(r.Zero))
}
