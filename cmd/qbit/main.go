// Command qbit reads qcow2 images and the backups made of them, on a host that
// has no QEMU.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks us to end in good order; the next one ends us.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, systemConsole(), os.Args[1:]))
}

// A console is where a run reads and writes, and its clock.
type console struct {
	in       io.Reader
	out, err io.Writer
	// errWidth is the width of the terminal that err is; 0: it is none.
	errWidth func() int
	now      func() time.Time
}

func systemConsole() *console {
	return &console{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		errWidth: func() int { return terminalWidth(os.Stderr) },
		now:      time.Now,
	}
}

// terminalWidth is the number of columns of the terminal f, or 0.
func terminalWidth(f *os.File) int {
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return max(width, 20)
}

// warn says something that the user should know and that is no error. Names
// from images may stand in it: it is escaped.
func (c *console) warn(format string, args ...any) {
	fmt.Fprintf(c.err, "qbit: warning: %s\n", escapeText(fmt.Sprintf(format, args...)))
}

// note says what was done where there was a choice.
func (c *console) note(format string, args ...any) {
	fmt.Fprintf(c.err, "qbit: note: %s\n", escapeText(fmt.Sprintf(format, args...)))
}

// run runs one command line and returns the exit status.
func run(ctx context.Context, c *console, args []string) int {
	if len(args) == 0 {
		printOverview(c.err)
		return exitUsage
	}
	switch args[0] {
	case "-h", "--help":
		printOverview(c.out)
		return exitDone
	case "help":
		return runHelp(c, args[1:])
	case "-V", "--version", "version":
		fmt.Fprintf(c.out, "qbit %s\n", version())
		return exitDone
	case "completion":
		return runCompletion(c, args[1:])
	}
	v, err := findVerb(args[0])
	if err != nil {
		return c.fail(err, statusOf)
	}
	return runVerb(ctx, c, v, args[1:])
}

// runVerb parses the flags of v and runs it.
func runVerb(ctx context.Context, c *console, v verb, args []string) int {
	cmd := v.new()
	fs := flagSet(v, cmd)
	switch help, err := parseFlags(fs, args); {
	case err != nil:
		return c.fail(usageError{fmt.Errorf("%w; see qbit %s --help", err, v.name)}, v.statusOf)
	case help:
		printVerb(c.out, v)
		return exitDone
	}
	err := cmd.run(ctx, c, fs.Args())
	status := c.fail(err, v.statusOf)
	c.hintSalvage(v, fs.Args(), err)
	return status
}
