package virtnbd

import (
	"errors"
	"fmt"

	"github.com/qbitkit/qbit/qcow2"
)

// ErrNotStream reports a file that does not begin with a meta frame.
var ErrNotStream = errors.New("not a virtnbdbackup stream")

// A FormatError says which bytes of a stream break which rule of the format.
type FormatError struct {
	Structure string           // "meta frame", "frame header", "data frame", "stop frame", "LZ4 frame", "trailer", "stream"
	Field     string           // the field of it: "kind", "virtualSize", "block 12"
	Host      qcow2.HostOffset // where it stands in the file
	Value     string           // what was found, printable; empty where that says nothing
	Msg       string           // the rule that it breaks
}

func (e *FormatError) Error() string {
	is := ""
	if e.Value != "" {
		is = " is " + e.Value
	}
	return fmt.Sprintf("%s: %s%s at host offset %s: %s", e.Structure, e.Field, is, e.Host, e.Msg)
}

// A LimitError reports a stream that asks for more than a limit of Options allows.
// The stream may be sound; who trusts it can raise the limit.
type LimitError struct {
	Limit  string // the field of Options
	Max    int64  // its value
	Format *FormatError
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%v (the limit %s is %d; raise it if you trust the stream)", e.Format, e.Limit, e.Max)
}

func (e *LimitError) Unwrap() error { return e.Format }

func formatError(structure, field string, host int64, value, msg string) *FormatError {
	return &FormatError{Structure: structure, Field: field, Host: qcow2.HostOffset(host), Value: value, Msg: msg}
}

// shown is a value of a file, fit for a message.
func shown(b []byte) string { return fmt.Sprintf("%.40q", b) }

func number(n int64) string { return fmt.Sprint(n) }
