package main

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/spf13/pflag"
)

// A bitmapOp is one operation of the command line.
type bitmapOp struct {
	kind *bitmapOpKind
	arg  string
	span span // of a RANGE
}

func (op bitmapOp) String() string {
	if op.arg == "" {
		return "--" + op.kind.name
	}
	return "--" + op.kind.name + " " + escapeName(op.arg)
}

// A bitmapOpKind is a row of the table of operations.
type bitmapOpKind struct {
	name  string
	usage string // with the `ARGUMENT`, if it takes one
	// do does it; see bitmapEditor.
	do func(*bitmapEditor, bitmapOp) error
}

// bitmapOps is the table of operations, in the order of the help.
func bitmapOps() []bitmapOpKind {
	return []bitmapOpKind{
		{"add", "make BITMAP, recording", (*bitmapEditor).add},
		{"remove", "remove BITMAP", (*bitmapEditor).remove},
		{"clear", "mark all of BITMAP clean", (*bitmapEditor).clear},
		{"enable", "have QEMU record into BITMAP", (*bitmapEditor).enable},
		{"disable", "have QEMU leave BITMAP as it is", (*bitmapEditor).disable},
		{"merge", "mark dirty in BITMAP what is dirty in the bitmap `SOURCE`", (*bitmapEditor).merge},
		{"rename", "rename BITMAP to `NEW`", (*bitmapEditor).rename},
		{"copy", "make a copy of BITMAP, `NEW`", (*bitmapEditor).copy},
		{"set", "mark the `RANGE` dirty in BITMAP", (*bitmapEditor).set},
		{"unset", "mark the `RANGE` clean in BITMAP", (*bitmapEditor).unset},
		{"import", "mark dirty in BITMAP what `FILE` says: the JSON of --export or\nof nbdinfo --map --json; -: standard input", (*bitmapEditor).imports},
	}
}

func (k *bitmapOpKind) takesArg() bool   { return strings.Contains(k.usage, "`") }
func (k *bitmapOpKind) takesRange() bool { return strings.Contains(k.usage, "`RANGE`") }

// setOperations registers the operations; all go to one list, so that their order
// is kept.
func (b *bitmapCommand) setOperations(fs *pflag.FlagSet) {
	for _, kind := range bitmapOps() {
		f := fs.VarPF(&opFlag{kind: kind, list: &b.operations}, kind.name, "", kind.usage)
		if !kind.takesArg() {
			f.NoOptDefVal = "true"
		}
	}
}

// An opFlag is the flag of an operation; each use of it is one more operation.
type opFlag struct {
	kind bitmapOpKind
	list *[]bitmapOp
}

func (f *opFlag) String() string { return "" }

func (f *opFlag) Type() string {
	if f.kind.takesArg() {
		return "string"
	}
	return "bool"
}

func (f *opFlag) Set(s string) error {
	op := bitmapOp{kind: &f.kind, arg: s}
	switch {
	case f.kind.takesRange():
		var err error
		if op.span, err = parseSpan(s); err != nil {
			return err
		}
	case f.kind.takesArg():
		if s == "" {
			return errors.New("it is empty")
		}
	case s != "true":
		return errors.New("it takes no value")
	default:
		op.arg = ""
	}
	*f.list = append(*f.list, op)
	return nil
}

// A span is a range of a disk, off to end.
type span struct {
	off, end int64
}

// parseSpan reads OFFSET+LENGTH or OFFSET-END, of sizes as QEMU writes them.
func parseSpan(s string) (span, error) {
	i := strings.IndexAny(s, "+-")
	if i < 0 {
		return span{}, errors.New("a range is OFFSET+LENGTH or OFFSET-END, like 1M+64k")
	}
	off, err := parseSize(s[:i])
	if err != nil {
		return span{}, err
	}
	end, err := parseSize(s[i+1:])
	if err != nil {
		return span{}, err
	}
	if s[i] == '+' {
		if end > math.MaxInt64-off {
			return span{}, fmt.Errorf("it ends above %d", int64(math.MaxInt64))
		}
		end += off
	}
	if end <= off {
		return span{}, errors.New("the range is empty")
	}
	return span{off, end}, nil
}

// check finds what does not go together.
func (b *bitmapCommand) check(args []string) error {
	if len(args) == 0 || len(args) > 2 {
		return usagef("bitmap takes an IMAGE, and for all but a list the name of a BITMAP in it")
	}
	if err := b.checkOptions(); err != nil {
		return err
	}
	if b.changes() {
		return b.checkChange(args)
	}
	return b.checkQuery(args)
}

// checkOptions finds options without what they belong to.
func (b *bitmapCommand) checkOptions() error {
	switch {
	case b.given("source-file") && !b.has("merge") && !b.given("diff"):
		return usagef("-b is the source of --merge or --diff")
	case b.sourceFormat != "" && b.source == "":
		return usagef("-F is the format of the file that -b names")
	case b.given("granularity") && !b.has("add") && !b.has("import"):
		return usagef("-g is for --add, or an --import that makes the bitmap")
	case b.inconsistent && !b.has("remove"):
		return usagef("--inconsistent says what --remove removes")
	case b.force && b.export == "":
		return usagef("--force is for --export")
	case b.dry && !b.changes():
		return usagef("-n says what an operation would change, and there is none")
	case b.given("export") && b.export == "", b.given("diff") && b.diff == "", b.given("source-file") && b.source == "":
		return usagef("--export, --diff and -b need a name")
	}
	if b.given("granularity") {
		return checkGranularity(b.granularity)
	}
	return nil
}

// has says that an operation is on the command line.
func (b *bitmapCommand) has(name string) bool {
	for _, op := range b.operations {
		if op.kind.name == name {
			return true
		}
	}
	return false
}

func (b *bitmapCommand) checkChange(args []string) error {
	all := b.dropAll || b.inconsistent
	switch {
	case b.ranges || b.salvage || b.export != "" || b.diff != "":
		return usagef("--ranges, --export, --diff and --salvage only read; an operation cannot stand beside them")
	case b.share:
		return usagef("-U is for reading; an image that another process has open is never changed")
	case b.dropAll && len(b.operations) > 0:
		return usagef("--drop-all stands alone")
	case b.inconsistent && len(b.operations) > 1:
		return usagef("--remove --inconsistent stands alone")
	case all && len(args) == 2:
		return usagef("--drop-all and --remove --inconsistent take an IMAGE and no BITMAP")
	case !all && len(args) == 1:
		return usagef("an operation takes the name of a BITMAP behind the IMAGE")
	}
	return nil
}

func (b *bitmapCommand) checkQuery(args []string) error {
	queries := 0
	for _, is := range []bool{b.ranges, b.diff != "", b.export != "" || b.salvage} {
		if is {
			queries++
		}
	}
	switch {
	case queries > 1:
		return usagef("--ranges, --export, --diff and --salvage exclude each other; only --salvage goes with --export")
	case queries == 1 && len(args) == 1:
		return usagef("the name of a BITMAP is missing")
	}
	return nil
}
