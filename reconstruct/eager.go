package reconstruct

import (
	"os"
	"sync"
	"sync/atomic"

	"github.com/qbitkit/qbit/qcow2"
)

// eagerStep is after how many written bytes the system is asked to store them:
// more than what is cheap to look through again and again, and little beside the
// memory in which a system gathers writes.
const eagerStep = 16 << 20

// An eagerFile has the system store what is written while more is being made, and
// not all at once at the sync in the end. It may be used from several goroutines.
type eagerFile struct {
	*os.File
	parallel bool         // several writes at once are of use
	direct   *directFile  // takes what is written, where it is not nil
	written  atomic.Int64 // bytes since the system was last asked

	turn sync.Mutex
	ask  func(*os.File) // startWriteback; tests count
}

// newEagerFile makes an eagerFile of an open file or block device.
func newEagerFile(f *os.File, device bool) *eagerFile {
	return &eagerFile{File: f, parallel: device, ask: startWriteback}
}

// WriteAt writes to the file.
func (f *eagerFile) WriteAt(p []byte, off int64) (int, error) {
	if f.direct != nil {
		return f.direct.WriteAt(p, off)
	}
	n, err := f.write(p, off)
	if f.written.Add(int64(n)) >= eagerStep && f.written.Swap(0) >= eagerStep {
		f.ask(f.File)
	}
	return n, err
}

// write lets one goroutine after the other write into a regular file: a system
// does the same, but has the others burn their time while they wait.
func (f *eagerFile) write(p []byte, off int64) (int, error) {
	if !f.parallel {
		f.turn.Lock()
		defer f.turn.Unlock()
	}
	return f.File.WriteAt(p, off)
}

var _ qcow2.File = (*eagerFile)(nil)
