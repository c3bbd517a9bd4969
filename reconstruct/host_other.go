//go:build !linux

package reconstruct

import (
	"errors"
	"io"
	"math"
	"os"
)

// fileHoles knows of no holes: everything is data.
type fileHoles struct{ f *os.File }

func (h fileHoles) NextData(off int64) (int64, error) {
	if info, err := h.f.Stat(); err == nil && info.Mode().IsRegular() && off >= info.Size() {
		return 0, io.EOF
	}
	return off, nil
}

func (h fileHoles) NextHole(off int64) (int64, error) {
	if _, err := h.NextData(off); err != nil {
		return 0, err
	}
	return math.MaxInt64, nil
}

func unsupported(err error) bool { return errors.Is(err, errors.ErrUnsupported) }

// There is no way known here to zero a range but to write it.
var zeroModes []uint32

func zeroRange(*os.File, uint32, int64, int64) error { return errors.ErrUnsupported }

const (
	openExclusive = 0
	openNonblock  = 0
	directFlag    = 0 // there is no direct I/O known here
)

// renameNew renames a file and refuses to replace another.
func renameNew(from, to string) error { return linkNew(from, to) }

// startWriteback does nothing: there is no way known here.
func startWriteback(*os.File) {}
