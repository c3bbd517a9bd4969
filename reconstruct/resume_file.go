package reconstruct

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// A journalFile is the journal of a restore, open and locked.
type journalFile struct {
	path    string
	partial string        // the unfinished result, for what is said; empty for a device
	inputs  []fs.FileInfo // files that are read; the journal is none of them

	f       *os.File
	fresh   bool // it was made now
	journal *ResumeJournal
}

// begin opens the journal of the restore that want describes, or begins one. One
// that is broken is begun again, if nothing can be lost.
func (j *journalFile) begin(want ResumeHeader, disposable bool) error {
	for range 100 {
		if err := j.open(); err != nil {
			return err
		}
		switch current, err := j.isCurrent(); {
		case err != nil:
			return err
		case !current: // who had the lock before has removed it
			j.close()
			continue
		}
		again, err := j.load(want, disposable && j.partial != "")
		if !again {
			return err
		}
	}
	return &fs.PathError{Op: "open", Path: j.path, Err: errors.New("it comes and goes")}
}

func (j *journalFile) open() error {
	f, err := os.OpenFile(j.path, os.O_RDWR|os.O_CREATE|openNoFollow|openNonblock, 0o644)
	if err != nil {
		return err
	}
	j.f = f
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || isOneOf(info, j.inputs) {
		return &fs.PathError{Op: "open", Path: j.path, Err: errors.New("the journal has to be a regular file, and none that is read or written otherwise")}
	}
	if err := lockResume(f); err != nil {
		return &fs.PathError{Op: "lock", Path: j.path, Err: err}
	}
	return nil
}

// isCurrent reports that the file that was locked is still the one of that name.
func (j *journalFile) isCurrent() (bool, error) {
	now, err := os.Lstat(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	mine, failed := j.f.Stat()
	if err := errors.Join(err, failed); err != nil {
		return false, err
	}
	return os.SameFile(now, mine), nil
}

// load reads the journal, or writes its header. again: it was removed.
func (j *journalFile) load(want ResumeHeader, disposable bool) (again bool, err error) {
	info, err := j.f.Stat()
	if err != nil {
		return false, err
	}
	if info.Size() == 0 {
		want.Mode = info.Mode().Perm()
		return false, j.make(want)
	}
	j.journal, err = ReadResumeJournal(j.f, info.Size())
	if err != nil && disposable {
		return true, j.remove()
	}
	msg := ""
	if err != nil {
		msg = err.Error()
	} else {
		msg = j.journal.Header.differs(&want)
	}
	if msg != "" {
		return false, &ResumeError{Journal: j.path, Partial: j.partial, Msg: msg}
	}
	return false, nil
}

// make writes the header of a new journal. It is durable before there is anything
// that it speaks of.
func (j *journalFile) make(h ResumeHeader) error {
	j.fresh = true
	h.Nonce = rand.Uint64()
	head, _, err := appendResumeHead(nil, &h)
	if err != nil {
		return err
	}
	if err := writeFull(j.f, head, 0); err != nil {
		return err
	}
	if err := errors.Join(j.f.Sync(), chmod(j.f, 0o600), syncFolder(filepath.Dir(j.path))); err != nil {
		return err
	}
	j.journal, err = ReadResumeJournal(bytes.NewReader(head), int64(len(head)))
	return err
}

// target makes the target, when all is open.
func (j *journalFile) target(data resumeData, end resumeEnd) (*ResumeTarget, error) {
	// Records that were dropped must not come back.
	if err := errors.Join(j.f.Truncate(j.journal.end), j.f.Sync()); err != nil {
		return nil, err
	}
	return &ResumeTarget{data: data, end: end, sums: j.journal.Sums, log: newResumeLog(j.f, data.Sync, j.journal)}, nil
}

// close closes the journal, which frees its lock.
func (j *journalFile) close() error {
	if j.f == nil {
		return nil
	}
	err := j.f.Close()
	j.f = nil
	return err
}

// remove removes the journal, while it is locked where the system can do that.
func (j *journalFile) remove() error {
	err := os.Remove(j.path)
	closed := j.close()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		err = os.Remove(j.path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, closed)
}
