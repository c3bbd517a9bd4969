package main

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/qbitkit/qbit/reconstruct/manifest"
	"github.com/qbitkit/qbit/reconstruct/plan"
)

// A fileState is what reading a file has shown.
type fileState string

const (
	fileSound   fileState = "sound"
	fileDoubt   fileState = "doubtful" // something in it is odd; what it holds can be read
	fileDamaged fileState = "damaged"  // what it holds is not what was written, or cannot be read
)

// A fileReport is what is known of a file of the set, or a member of an archive
// there.
type fileReport struct {
	File    string      `json:"file"`
	Format  plan.Format `json:"format"`
	Size    int64       `json:"size"`
	State   fileState   `json:"state"`
	Skipped bool        `json:"skipped,omitempty"` // found sound before, says the journal
	Tree    string      `json:"xxh64-4m,omitempty"`
	SHA256  string      `json:"sha256,omitempty"`
	Adler32 *uint32     `json:"adler32,omitempty"`
	// Sealed says whether it is the file of the manifest; nil: that does not have it.
	Sealed   *bool         `json:"sealed,omitempty"`
	Findings []fileFinding `json:"findings,omitempty"`

	backup *plan.Backup
	sealed *manifest.File // nil: it is in no manifest
	summed bool           // Tree is known
	sum    manifest.File
}

// A fileFinding is something that reading a file has shown.
type fileFinding struct {
	State fileState `json:"state"` // what it makes of the file
	Text  string    `json:"text"`
}

// find notes something about a file. Only so many are kept.
func (f *fileReport) find(state fileState, text string) {
	if state == fileDamaged || f.State == fileSound {
		f.State = state
	}
	const most = 100
	if len(f.Findings) < most {
		f.Findings = append(f.Findings, fileFinding{state, text})
	} else if len(f.Findings) == most {
		f.Findings = append(f.Findings, fileFinding{state, "and more of the kind"})
	}
}

// listFiles makes a report for each file of the backups.
func (v *verifier) listFiles() {
	v.byName = map[string]*fileReport{}
	for _, d := range v.s.Disks {
		sealed := sealedDisk(v.m, d)
		for _, b := range d.Backups {
			f := &fileReport{File: b.Source.String(), Format: b.Source.Format, Size: b.Stored, State: fileSound, backup: b}
			if v.byName[f.File] != nil {
				continue
			}
			if p := sealedPoint(sealed, d, b); p != nil && len(p.Files) > 0 {
				f.sealed = &p.Files[0]
			}
			v.files, v.byName[f.File] = append(v.files, f), f
		}
	}
}

func (v *verifier) bytesToRead() int64 {
	n := int64(0)
	for _, f := range v.files {
		if !v.journal.knows(f) {
			n += f.Size
		}
	}
	return n
}

// wantsSums says that the checksums of all bytes of a file are of use.
func (v *verifier) wantsSums(f *fileReport) bool {
	return f.sealed != nil || v.k.state != "" || v.k.sha256
}

// fileWorkers is how many files are read at once.
func (v *verifier) fileWorkers() int {
	n := v.k.workers
	if n <= 0 {
		n = min(runtime.GOMAXPROCS(0), 8)
	}
	return max(1, min(n, len(v.files)))
}

// readFiles reads all files, several at once, each whole and once. What is wrong
// with a file stands in its report; the error is for what ends the run.
func (v *verifier) readFiles(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	todo := make(chan *fileReport)
	var wg sync.WaitGroup
	for range v.fileWorkers() {
		wg.Go(func() {
			for f := range todo {
				if ctx.Err() == nil {
					if err := v.readFile(ctx, f); err != nil {
						stop(err)
					}
				}
			}
		})
	}
	for _, f := range v.files {
		todo <- f
	}
	close(todo)
	wg.Wait()
	return context.Cause(ctx)
}

// readFile reads one file, unless the journal says that it was found sound.
func (v *verifier) readFile(ctx context.Context, f *fileReport) error {
	r := &fileReader{v: v, f: f}
	if v.journal.take(f, v.k) {
		f.Skipped = true
		r.compareSealed()
		return nil
	}
	if err := r.read(ctx); err != nil {
		return err
	}
	if f.State == fileSound {
		return v.journal.add(f, v.k.second)
	}
	return nil
}

// A share is the part of the meter that belongs to one file: however often its
// bytes are looked at, they count once.
type share struct {
	m     *meter
	size  int64
	shown atomic.Int64
}

// set says that done bytes of the file were read.
func (s *share) set(done int64) {
	done = min(done, s.size)
	for {
		before := s.shown.Load()
		if done <= before {
			return
		}
		if s.shown.CompareAndSwap(before, done) {
			s.m.Add(done - before)
			return
		}
	}
}
