package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/qcow2"
)

func inspectVerb() verb {
	return verb{
		name:  "inspect",
		args:  "IMAGE…",
		short: "say what a stranger's image could do to who opens it",
		long:  inspectHelp,
		exits: inspectExits,
		new:   func() command { return new(inspectCommand) },
	}
}

const inspectHelp = `Looks at an image that a stranger gave you, and says what it names, claims and
hides: backing and data files, encryption, snapshots with the memory of a guest,
unknown features, sizes that do not fit the file, tables that break the format,
signatures of other formats. Nothing that the image names is opened or looked for,
and its guest's data is not read. Time and memory are bounded, whatever it claims.

With --policy it also says whether to accept the image, and which rule each
finding breaks, with the CVE numbers of what such images did to others. The policy
refuses whatever could make a host read or write another file, run long, or fill
up; docs/hostile.md lists the rules. An image that cannot be judged, because it is
broken, unknown, or beyond a limit (--limit), is refused.

The verdict is about the bytes that were read. Open the image afterwards with its
format given, and do not let it change in between.`

const inspectExits = `0  looked at; with --policy: every image is acceptable
1  could not look: a file is missing, unreadable, or in use
2  with --policy: an image should be refused
3  the command line is wrong`

// inspectLimits keep a look at any image short; the user can raise them.
var inspectLimits = qcow2.Limits{SnapshotTableBytes: 6 << 20, BitmapDirectoryBytes: 6 << 20, BitmapWork: 256 << 20, L2Bytes: 512 << 20}

// inspectCommand is `qbit inspect`.
type inspectCommand struct {
	outputFlag
	share  bool
	limits limitsFlag
	judge  bool
	policy uploadPolicy
}

// An uploadPolicy is what the user accepts beyond the default.
type uploadPolicy struct {
	backing        bool
	encrypted      bool
	maxVirtualSize sizeValue // 0: any
	maxRatio       int64
}

// defaultMaxRatio is near what deflate can reach at the most (1032).
const defaultMaxRatio = 1000

func (i *inspectCommand) setFlags(fs *pflag.FlagSet) {
	i.outputFlag.register(fs)
	fs.BoolVar(&i.judge, "policy", false, "say whether to accept the image; the options below need it")
	fs.BoolVar(&i.policy.backing, "allow-backing", false, "accept a backing file with a plain name in the image's own folder and a format")
	fs.BoolVar(&i.policy.encrypted, "allow-encrypted", false, "accept LUKS encryption; what it hides cannot be looked at")
	fs.Var(&i.policy.maxVirtualSize, "max-virtual-size", "accept disks of up to `SIZE`; without it any size")
	fs.Int64Var(&i.policy.maxRatio, "max-ratio", defaultMaxRatio, "accept up to `N` bytes of guest data for each byte of the file")
	fs.BoolVarP(&i.share, "force-share", "U", false, "look at images that another process is writing")
	i.limits.register(fs)
}

func (i *inspectCommand) run(ctx context.Context, c *console, args []string) error {
	p := i.policy
	switch {
	case len(args) == 0:
		return usagef("inspect takes one or more images")
	case p.maxRatio <= 0:
		return usagef("--max-ratio %d: it must be above 0", p.maxRatio)
	case !i.judge && p != uploadPolicy{maxRatio: defaultMaxRatio}:
		return usagef("--allow-backing, --allow-encrypted, --max-virtual-size and --max-ratio need --policy")
	}
	var (
		reports  []*inspectReport
		problems []error
	)
	for _, arg := range args {
		r, err := i.image(ctx, c, arg)
		if err == nil && r.Verdict == verdictRefuse {
			err = silent{badData{errors.New("an image should be refused")}}
		}
		problems = append(problems, err)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case r == nil:
		case i.json():
			reports = append(reports, r)
		default:
			r.print(c.out)
		}
	}
	if i.json() && len(reports) > 0 {
		problems = append(problems, writeReports(c, reports, len(args)))
	}
	return errors.Join(problems...)
}

func writeReports(c *console, reports []*inspectReport, args int) error {
	if args == 1 {
		return writeJSON(c.out, reports[0])
	}
	return writeJSON(c.out, reports)
}

// image looks at one image. The error is that of looking; what is wrong with the
// image is in the report.
func (i *inspectCommand) image(ctx context.Context, c *console, arg string) (*inspectReport, error) {
	file, err := openFile(arg)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	o := &opener{sourceFlags: sourceFlags{share: i.share}, c: c}
	if err := o.lock(file); err != nil {
		return nil, err
	}
	in := &inspection{ctx: ctx, file: file, policy: i.policy, report: &inspectReport{Filename: arg, FileSize: file.size}}
	if err := in.look(&qcow2.Options{Limits: i.limits.tighten(inspectLimits)}); err != nil {
		return nil, fmt.Errorf("%s: %w", escapeName(arg), err)
	}
	in.report.finish(i.judge)
	return in.report, nil
}
