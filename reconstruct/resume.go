package reconstruct

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sort"
	"sync/atomic"

	"github.com/qbitkit/qbit/qcow2"
)

// Restoring can be resumed where the target can be read back. Of a qcow2 image
// that is being written it cannot: which cluster holds what is known only to the
// writer until its end.

// ErrResumeBusy says that another process restores with the same journal.
var ErrResumeBusy = errors.New("another process is restoring with this journal")

// A ResumeError says why an unfinished restore cannot go on.
type ResumeError struct {
	Journal string // its path
	Partial string // the path of the unfinished result; empty for a device
	Msg     string
}

func (e *ResumeError) Error() string {
	files := e.Journal
	if e.Partial != "" {
		files += " and " + e.Partial
	}
	return fmt.Sprintf("%s: the restore that was interrupted cannot go on: %s; to start anew, remove %s", e.Journal, e.Msg, files)
}

// A ResumeTarget is a Target that keeps a journal of the chunks that are done, so
// that a restore which ended early can go on. Copy takes a chunk over that was
// recorded, if it reads back with the hash that it was recorded with; all else it
// makes again. The digests are those of an uninterrupted run.
//
// Abort keeps what was done, if anything was. After Commit the journal is still
// there, and says that the result is whole; Forget removes it.
//
// Beside what Copy uses, a goroutine of its own syncs from time to time; it has
// ended when Commit or Abort returns.
type ResumeTarget struct {
	data   resumeData
	log    *resumeLog // nil: nothing is to be recorded
	end    resumeEnd
	sums   []ResumeSum // that the journal had
	done   bool        // Commit or Abort was called
	kept   atomic.Int64
	spoilt atomic.Int64
}

// A resumeEnd is what becomes of the files of a restore.
type resumeEnd interface {
	// commit makes the result durable and gives it its name.
	commit() error
	// leave closes the result, to be resumed.
	leave() error
	// forget removes the journal, and what is left of the result.
	forget() error
}

// Kept is how many bytes of the disk were taken over from earlier runs, so far.
func (t *ResumeTarget) Kept() int64 { return t.kept.Load() }

// Spoilt is how many chunks were recorded, and did not read back as they should,
// so far. They were made again. A crash does not cause that: the disk is to be
// doubted, or somebody wrote to the file.
func (t *ResumeTarget) Spoilt() int64 { return t.spoilt.Load() }

// Recorded reports that the journal holds a chunk, so that there is something to
// resume.
func (t *ResumeTarget) Recorded() bool { return t.log == nil || t.log.recorded() }

// WriteAt implements Target.
func (t *ResumeTarget) WriteAt(p []byte, off int64) (int, error) { return t.data.WriteAt(p, off) }

// Zero implements Target.
func (t *ResumeTarget) Zero(off, n int64) error { return t.zeroContext(context.Background(), off, n) }

// zeroContext zeroes a range; in a new file it is a hole, unless something was kept
// there that should not be.
func (t *ResumeTarget) zeroContext(ctx context.Context, off, n int64) error {
	for i := t.find(off / ChunkSize); i < len(t.sums) && t.sums[i].Chunk*ChunkSize < off+n; i++ {
		from := t.sums[i].Chunk * ChunkSize
		to := min(from+ChunkSize, off+n)
		if from = max(from, off); from < to {
			if err := t.data.clear(ctx, from, to-from); err != nil {
				return err
			}
		}
	}
	return t.data.zero(ctx, off, n)
}

// Place implements Placer.
func (t *ResumeTarget) Place(off, n int64) (host, run int64, err error) { return off, n, nil }

func (t *ResumeTarget) shareFile() *os.File { return t.data.shareFile() }

// find is the index of the first recorded chunk from chunk on.
func (t *ResumeTarget) find(chunk int64) int {
	return sort.Search(len(t.sums), func(i int) bool { return t.sums[i].Chunk >= chunk })
}

// recorded is the hash of a chunk that an earlier run wrote.
func (t *ResumeTarget) recorded(chunk int64) (uint64, bool) {
	i := t.find(chunk)
	if i == len(t.sums) || t.sums[i].Chunk != chunk {
		return 0, false
	}
	return t.sums[i].Sum, true
}

// spoil gets a recorded chunk ready to be made again.
func (t *ResumeTarget) spoil(ctx context.Context, off, n int64) error {
	t.spoilt.Add(1)
	return t.data.clear(ctx, off, n)
}

// wrote records a chunk that was written.
func (t *ResumeTarget) wrote(off, n int64, sum uint64) error {
	if t.log == nil {
		return nil
	}
	if err := t.log.add(off/ChunkSize, sum, n); err != nil {
		return rangeError("record", nil, qcow2.Extent{Off: off, Len: n}, err)
	}
	return nil
}

// Commit implements Target. If it fails, the restore can be resumed.
func (t *ResumeTarget) Commit() error {
	if t.done {
		return fs.ErrClosed
	}
	if t.log != nil {
		if err := t.log.end(true); err != nil {
			return err
		}
	}
	t.done = true
	if err := t.end.commit(); err != nil {
		return errors.Join(err, t.end.leave())
	}
	return nil
}

// Abort implements Target. What was done is kept for another run. If nothing was
// recorded, no file is left. After Commit it only frees the journal for others.
func (t *ResumeTarget) Abort() error {
	if t.done {
		return t.end.leave()
	}
	t.done = true
	var err error
	if t.log != nil {
		err = t.log.end(false)
	}
	if !t.Recorded() {
		return errors.Join(err, t.end.leave(), t.end.forget())
	}
	return errors.Join(err, t.end.leave())
}

// Forget removes the journal of a restore that was committed. With several disks
// it is kept until all are done, so that a second run knows what is.
func (t *ResumeTarget) Forget() error { return t.end.forget() }
