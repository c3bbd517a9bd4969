//go:build !linux

package qcow2

import (
	"errors"
	"fmt"
)

// fallocate has the filesystem set space aside, where the system has a call for it.
func fallocate(f File, _, _ int64) error {
	return fmt.Errorf("setting space aside in a %T: %w", f, errors.ErrUnsupported)
}
