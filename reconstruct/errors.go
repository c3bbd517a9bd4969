package reconstruct

import (
	"errors"
	"fmt"
	"strings"

	"github.com/qbitkit/qbit/qcow2"
)

// A ChainError reports links that do not make a disk. A chain with one is never
// restored.
type ChainError struct {
	Link    string // the name of the link; empty where the chain as a whole is meant
	Index   int    // its place, 0 for the oldest; -1 for the chain as a whole
	Msg     string // the rule that is broken
	Missing string // what should be there, as a name or in words; may be empty
	Found   string // what is there instead; may be empty
}

func (e *ChainError) Error() string {
	var b strings.Builder
	b.WriteString("chain of backups: ")
	if e.Index >= 0 {
		fmt.Fprintf(&b, "link %d (%q): ", e.Index+1, e.Link)
	}
	b.WriteString(e.Msg)
	if e.Missing != "" {
		fmt.Fprintf(&b, "; missing: %s", e.Missing)
	}
	if e.Found != "" {
		fmt.Fprintf(&b, "; found: %s", e.Found)
	}
	return b.String()
}

// A RangeError says which guest bytes could not be walked, read or written.
type RangeError struct {
	Op       string // "map", "read", "write", "zero"
	Off, Len int64  // guest bytes
	Link     string // the link that holds them, where that is known
	Host     qcow2.HostOffset
	HasHost  bool // Host says where the bytes are stored
	Err      error
}

var opWords = map[string]string{
	"map": "mapping", "read": "reading", "write": "writing", "zero": "zeroing",
}

func (e *RangeError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s guest bytes %d to %d", opWords[e.Op], e.Off, e.Off+e.Len)
	if e.Link != "" {
		fmt.Fprintf(&b, " of link %q", e.Link)
	}
	if e.HasHost {
		fmt.Fprintf(&b, " at host offset %s", e.Host)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	return b.String()
}

func (e *RangeError) Unwrap() error { return e.Err }

// rangeError says where in d an error happened, nil for none. What says so
// already, and better, stays as it is.
func rangeError(op string, d qcow2.Disk, e qcow2.Extent, err error) error {
	var known *RangeError
	if err == nil || errors.As(err, &known) {
		return err
	}
	r := &RangeError{Op: op, Off: e.Off, Len: e.Len, Host: e.Host, HasHost: located(e), Err: err}
	if chain, ok := d.(*Chain); ok {
		r.Link = chain.linkName(e.Depth)
	}
	return r
}

// A SizeError reports two disks of different sizes where sizes have to be equal.
type SizeError struct {
	A, B int64 // bytes
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("the disks have different sizes: %d and %d bytes", e.A, e.B)
}
