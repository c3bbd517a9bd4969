package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/qcow2"
)

func checkVerb() verb {
	return verb{
		name:   "check",
		args:   "IMAGE…",
		short:  "find what is wrong inside images: refcounts, tables, bitmaps",
		long:   checkHelp,
		exits:  checkExits,
		new:    func() command { return new(checkCommand) },
		status: checkStatus,
	}
}

const checkHelp = `Follows every reference in an image and compares them with the refcounts: the
active tables, those of the snapshots, the refcount structures, the snapshot table,
the encryption header, the bitmap directory, bitmap tables and data. Beside what
qemu-img check finds it tells metadata that overlaps, entries that QEMU refuses when
it meets them, and what is wrong with bitmaps.

Each finding says where it is (host offset, guest bytes), what was found and wanted;
below them stands what that means for the data, and the command that mends it.
A corruption is worse than a leak, which costs space alone; a notice is worth
knowing, and no error. Without -r nothing is written.

With --output=json the result has the keys of qemu-img check with the same values,
and "findings". An image is read once, or more often where --memory does not hold
what has to be remembered of it.

-r all mends what can be mended without guessing: entries that break the format,
refcounts (from scratch, where they are unusable), copied bits, bitmaps. Guest bytes
that can be read before are the same after it. -r leaks gives back clusters that
nothing refers to; -r bitmaps drops or mends broken bitmaps and touches nothing else.
A repair is made in memory first and checked there; then its journal is written, and
then the image, so that a power cut at any moment leaves what can be repaired again.`

const checkExits = `0  nothing is wrong, notices aside
1  could not check: a file is missing, in use, unreadable, or uses a feature
   that is not supported; or the command line is wrong
2  there are corruptions
3  there are leaked clusters, and nothing worse
with -r what is left counts, and with -n what there is; of several images: 2 before 1 before 3`

// checkCommand is `qbit check`.
type checkCommand struct {
	sourceFlags
	outputFlag
	progressFlags
	repairFlags
	memory sizeValue
}

func (k *checkCommand) setFlags(fs *pflag.FlagSet) {
	fs.VarP(choice{&k.repair, []string{"leaks", "all", "bitmaps"}}, "repair", "r", "repair `WHAT`: leaks, all, or bitmaps")
	fs.BoolVarP(&k.dry, "dry-run", "n", false, "with -r: say what would be changed, and write nothing")
	fs.BoolVar(&k.drop, "drop-snapshots", false, "with -r all: give up all snapshots, if their table is broken")
	fs.StringVar(&k.journal, "journal", "", "with -r: write old and new bytes to the new file `FILE` before the\nimage is changed; IMAGE.qbit-repair.json by default")
	fs.StringVar(&k.to, "to", "", "with -r: repair the new file `COPY`, and leave the image as it is")
	fs.StringVar(&k.undo, "undo", "", "undo the repair that wrote the journal `FILE`, also one that was\ninterrupted")
	k.outputFlag.register(fs)
	fs.Var(&k.memory, "memory", "use at most about `SIZE` for what has to be remembered of an\nimage; 64M by default")
	k.progressFlags.register(fs)
	k.sourceFlags.register(fs)
}

func (k *checkCommand) run(ctx context.Context, c *console, args []string) error {
	if len(args) == 0 {
		return usagef("check takes one or more images")
	}
	if k.sourceFlags.format == formatRaw {
		return usagef("a raw disk has nothing that can be checked")
	}
	if change, err := k.wanted(args); err != nil || change {
		if err != nil {
			return err
		}
		return k.change(ctx, c, args[0])
	}
	if k.json() {
		return k.runJSON(ctx, c, args)
	}
	var problems []error
	for i, arg := range args {
		p := &checkPrinter{c: c, path: arg, quiet: k.quiet}
		if len(args) > 1 && !k.quiet {
			p.begin(i)
		}
		job, err := k.prepare(c, arg)
		if err == nil {
			err = k.check(ctx, c, job, p)
		}
		problems = append(problems, err)
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(problems...)
}

// A checkSink takes what a check finds.
type checkSink interface {
	start(m *meter)
	found(f qcow2.Finding) error
	end(img *qcow2.Image, res *qcow2.CheckResult) error
}

// A checkJob is an image that is to be checked.
type checkJob struct {
	arg   string
	img   *qcow2.Image // nil where the header breaks the format
	bad   qcow2.Finding
	close func()
}

// prepare opens an image, with its data file where that one is allowed.
func (k *checkCommand) prepare(c *console, arg string) (*checkJob, error) {
	job, err := k.open(c, arg, refsLink)
	if refused := new(refusedError); errors.As(err, &refused) {
		c.note("%v; what it holds is not checked", err)
		job, err = k.open(c, arg, refsOwn)
	}
	if err == nil {
		return job, nil
	}
	if f, ok := qcow2.HeaderFinding(err); ok {
		return &checkJob{arg: arg, bad: f, close: func() {}}, nil
	}
	return nil, err
}

func (k *checkCommand) open(c *console, arg string, mode refMode) (*checkJob, error) {
	o, err := k.newOpener(c)
	if err != nil {
		return nil, err
	}
	l, err := o.open(linkArg{name: arg, path: arg}, mode)
	if err != nil {
		o.close()
		return nil, err
	}
	return &checkJob{arg: arg, img: l.image, close: o.close}, nil
}

// check checks an image and closes it. The error says how it went: see checkStatus.
func (k *checkCommand) check(ctx context.Context, c *console, job *checkJob, out checkSink) error {
	defer job.close()
	if job.img == nil {
		return k.brokenHeader(job, out)
	}
	opts := &qcow2.CheckOptions{Memory: int64(k.memory)}
	plan := job.img.PlanCheck(opts)
	if plan.Passes > 1 && !k.quiet {
		c.note("%s: %d clusters, which are checked in up to %d passes with %s of memory; more --memory needs fewer",
			escapeName(job.arg), plan.Clusters, plan.Passes, formatSize(plan.Memory))
	}
	m := newMeter(c, &k.progressFlags, "check", plan.Clusters*job.img.Geometry().ClusterSize())
	defer m.clearLine()
	opts.Progress = func(done, _ int64) { m.Set(done) }
	out.start(m)
	res, err := job.img.Check(ctx, opts, out.found)
	if err != nil {
		return err
	}
	m.Finish()
	if err := out.end(job.img, res); err != nil {
		return err
	}
	return verdict(res)
}

// brokenHeader reports an image of which nothing but the header can be checked.
func (k *checkCommand) brokenHeader(job *checkJob, out checkSink) error {
	out.start(nil)
	if err := out.found(job.bad); err != nil {
		return err
	}
	res := &qcow2.CheckResult{Corruptions: 1, Incomplete: true}
	if err := out.end(nil, res); err != nil {
		return err
	}
	return verdict(res)
}

// How a check went; all was said.
var (
	errCheckFailed = silent{errors.New("the check is not complete")}
	errCorrupt     = silent{errors.New("the image is corrupt")}
	errLeaks       = silent{errors.New("the image has leaks")}
)

func verdict(res *qcow2.CheckResult) error {
	switch {
	case res.CheckErrors > 0:
		return errCheckFailed
	case res.Corruptions > 0:
		return errCorrupt
	case res.Leaks > 0:
		return errLeaks
	}
	return nil
}

// checkStatus maps what a check returned to the status of qemu-img check.
func checkStatus(err error) int {
	leaks, failed := false, false
	for _, problem := range problems(err) {
		switch {
		case errors.Is(problem, errCorrupt):
			return 2
		case errors.Is(problem, errLeaks):
			leaks = true
		default:
			failed = true
		}
	}
	switch {
	case failed:
		return 1
	case leaks:
		return 3
	}
	return 0
}

// mendCommand is the command that mends a kind of finding, or "".
func mendCommand(kind qcow2.FindingKind, path string) string {
	_, mend := qcow2.Explain(kind)
	if mend == "" {
		return ""
	}
	return fmt.Sprintf("qbit %s %s", mend, shellWord(path))
}
