package plan

import "github.com/qbitkit/qbit/qcow2"

// Options are the options of Discover. The zero value is the usual case.
type Options struct {
	// Files names the files to look at, below the folder; nil: all.
	Files []string
	// Moved says where a path that a record or a header names is now: old
	// prefixes to new ones, which are paths below the folder.
	Moved map[string]string
	// Absolute is the absolute path of the folder, for records that name files by
	// theirs; empty: such names are not resolved.
	Absolute string
	// MaxFiles bounds how many files are looked at; 0 means 100 000.
	MaxFiles int
	// MaxDepth bounds how deep folders are looked into; 0 means 16.
	MaxDepth int
	// MaxRecord bounds a record (XML, JSON) in bytes; 0 means 16 MiB. Larger ones
	// are passed over, and said.
	MaxRecord int64
	// Qcow2 are the limits for images.
	Qcow2 qcow2.Limits
}

func (o *Options) withDefaults() Options {
	var v Options
	if o != nil {
		v = *o
	}
	if v.MaxFiles <= 0 {
		v.MaxFiles = 100_000
	}
	if v.MaxDepth <= 0 {
		v.MaxDepth = 16
	}
	if v.MaxRecord <= 0 {
		v.MaxRecord = 16 << 20
	}
	return v
}
