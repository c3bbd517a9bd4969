package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// A command is one run of a verb: its flags, then its work.
type command interface {
	setFlags(fs *pflag.FlagSet)
	run(ctx context.Context, c *console, args []string) error
}

// A verb is one row of the table of what qbit does.
type verb struct {
	name  string
	args  string // what stands after the options in the usage line
	short string // one line for the overview
	long  string // the text of its help
	exits string // the exit statuses, if they are not the usual ones
	new   func() command
	// status maps what run returned to an exit status; nil: statusOf.
	status func(error) int
}

func (v verb) statusOf(err error) int {
	if v.status == nil {
		return statusOf(err)
	}
	return v.status(err)
}

// verbs is the table, in the order of the overview.
func verbs() []verb {
	return []verb{
		planVerb(),
		restoreVerb(),
		sealVerb(),
		verifyVerb(),
		infoVerb(),
		inspectVerb(),
		mapVerb(),
		compareVerb(),
		digestVerb(),
		bitmapVerb(),
		checkpointVerb(),
		backupVerb(),
		squashVerb(),
		convertVerb(),
		createVerb(),
		rebaseVerb(),
		commitVerb(),
		resizeVerb(),
		measureVerb(),
		checkVerb(),
		salvageVerb(),
	}
}

// findVerb finds a verb by its name. The error proposes what was meant.
func findVerb(name string) (verb, error) {
	var near []string
	for _, v := range verbs() {
		if v.name == name {
			return v, nil
		}
		if strings.HasPrefix(v.name, name) || editDistance(v.name, name) <= 2 {
			near = append(near, v.name)
		}
	}
	if len(near) > 0 {
		return verb{}, usageError{fmt.Errorf("there is no verb %q; did you mean %s?", name, strings.Join(near, " or "))}
	}
	return verb{}, usageError{fmt.Errorf("there is no verb %q; qbit --help lists them", name)}
}

// editDistance is the number of letters to add, drop or change, to come from a
// to b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// flagSet is the flags of one verb, in the order in which it named them.
func flagSet(v verb, cmd command) *pflag.FlagSet {
	fs := pflag.NewFlagSet(v.name, pflag.ContinueOnError)
	fs.SortFlags = false
	fs.SetOutput(io.Discard)
	cmd.setFlags(fs)
	fs.BoolP("help", "h", false, "print this help")
	return fs
}

// parseFlags parses a command line; help says that it asks for help.
func parseFlags(fs *pflag.FlagSet, args []string) (help bool, err error) {
	if err := fs.Parse(args); err != nil {
		return false, err
	}
	return fs.GetBool("help")
}

// choice is a flag that takes one of a few words.
type choice struct {
	value *string
	words []string
}

func (c choice) String() string { return *c.value }
func (c choice) Type() string   { return strings.Join(c.words, "|") }

func (c choice) Set(s string) error {
	for _, w := range c.words {
		if s == w {
			*c.value = s
			return nil
		}
	}
	return fmt.Errorf("it is one of %s", strings.Join(c.words, ", "))
}

// addChoice registers a flag that takes one of a few words; *p holds the default.
func addChoice(fs *pflag.FlagSet, p *string, name, short, usage string, words ...string) {
	fs.VarP(choice{p, words}, name, short, usage)
}

// outputFlag is --output, as qemu-img has it.
type outputFlag struct {
	format string
}

func (o *outputFlag) register(fs *pflag.FlagSet) {
	o.format = "human"
	addChoice(fs, &o.format, "output", "", "write for people or as JSON: `FORMAT` is human or json", "human", "json")
}

func (o *outputFlag) json() bool { return o.format == "json" }
