package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/qcow2"
)

// limitsFlag is --limit NAME=N, which may be repeated.
type limitsFlag struct {
	limits qcow2.Limits
	said   []string
}

func (l *limitsFlag) register(fs *pflag.FlagSet) {
	fs.Var(l, "limit", "set a limit on what images may ask for, as `NAME=N`; errors name the limit that they met. May be repeated")
}

func (l *limitsFlag) String() string { return strings.Join(l.said, ",") }
func (l *limitsFlag) Type() string   { return "NAME=N" }

func (l *limitsFlag) Set(s string) error {
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return fmt.Errorf("it is NAME=N; the limits are %s", strings.Join(qcow2.LimitNames(), ", "))
	}
	n, err := parseSize(value)
	if err != nil {
		return err
	}
	l.said = append(l.said, s)
	return l.limits.Set(name, n)
}

// tighten lowers limits that the user did not set.
func (l *limitsFlag) tighten(lower qcow2.Limits) qcow2.Limits {
	limits := l.limits
	for _, f := range []struct{ to, from *int64 }{
		{&limits.SnapshotTableBytes, &lower.SnapshotTableBytes},
		{&limits.BitmapDirectoryBytes, &lower.BitmapDirectoryBytes},
		{&limits.BitmapWork, &lower.BitmapWork},
		{&limits.L2Bytes, &lower.L2Bytes},
	} {
		if *f.to == 0 {
			*f.to = *f.from
		}
	}
	return limits
}
