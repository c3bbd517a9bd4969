package main

import (
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
)

// salvageVerbs refuse ranges that salvage reads as far as they go.
var salvageVerbs = []string{"restore", "map", "digest", "compare"}

// hintSalvage says after an error what the user can do about broken tables and
// clusters.
func (c *console) hintSalvage(v verb, args []string, err error) {
	if slices.Contains(salvageVerbs, v.name) && slices.ContainsFunc(problems(err), salvageable) {
		c.note("qbit salvage %s -o OUT reads what can still be read, and says what is lost", salvageArgument(v, args))
	}
}

// salvageable reports an error about the header, tables or clusters of an image, or about
// the device that it is on; not one about a chain or a limit.
func salvageable(err error) bool {
	var format *qcow2.FormatError
	switch {
	case errors.As(err, new(*reconstruct.ChainError)), errors.As(err, new(*qcow2.LimitError)):
		return false
	case errors.As(err, &format):
		return slices.Contains([]string{"header", "L1 table", "L2 table", "compressed cluster"}, format.Structure)
	}
	return errors.Is(err, syscall.EIO)
}

// salvageArgument is what to salvage: the disk that the verb was to read, where it is
// one that salvage takes.
func salvageArgument(v verb, args []string) string {
	joined := strings.Join(args, "+")
	for _, arg := range args {
		info, err := os.Stat(arg)
		if v.name == "compare" || err != nil && !strings.ContainsAny(arg, "+@") || err == nil && !info.Mode().IsRegular() {
			return "IMAGE"
		}
	}
	if joined == "" {
		return "IMAGE"
	}
	return shellWord(joined)
}
