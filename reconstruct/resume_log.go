package reconstruct

import (
	"sync"
	"time"

	"github.com/qbitkit/qbit/qcow2"
)

// How much may have to be done again after a crash: what came in so many bytes (first
// few, then twice as many each time), or in so much time, whichever ends first, and as
// much again while that is synced.
const (
	resumeFirst = 16 << 20
	resumeBatch = 256 << 20
	resumeEvery = 3 * time.Second
)

// A resumeLog appends records to a journal. What it records was synced before: a
// record whose chunk is not there says that something is wrong with the disk. It may
// be used from several goroutines, and has one of its own while it syncs; Close
// waits for that.
type resumeLog struct {
	f     qcow2.File   // the journal
	data  func() error // syncs what the records speak of
	key   uint64       // of the journal
	batch int64
	every time.Duration

	mu      sync.Mutex
	idle    *sync.Cond // nothing is being synced
	busy    bool
	at      int64  // where the next record goes
	pending []byte // records whose chunks were not synced yet
	bytes   int64  // of those chunks
	since   time.Time
	err     error // ends all: after a sync that failed nothing is believed
	any     bool  // there is a record
}

func newResumeLog(f qcow2.File, data func() error, j *ResumeJournal) *resumeLog {
	l := &resumeLog{f: f, data: data, key: j.key, at: j.end, batch: resumeFirst, every: resumeEvery,
		since: time.Now(), any: j.end > j.head}
	l.idle = sync.NewCond(&l.mu)
	return l
}

// add records a chunk of n bytes that was written.
func (l *resumeLog) add(chunk int64, sum uint64, n int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = appendRecord(l.pending, l.key, uint64(chunk), sum)
	l.bytes += n
	if l.err == nil && !l.busy && (l.bytes >= l.batch || time.Since(l.since) >= l.every) {
		l.busy, l.batch = true, min(2*l.batch, resumeBatch)
		go l.flush()
	}
	return l.err
}

// flush makes what was added durable: first the chunks, then their records. It
// belongs to who has set busy.
func (l *resumeLog) flush() {
	l.mu.Lock()
	records, at, err := l.pending, l.at, l.err
	l.pending, l.bytes, l.since = nil, 0, time.Now()
	l.mu.Unlock()
	if err == nil && len(records) > 0 {
		err = l.store(records, at)
	}
	l.mu.Lock()
	if l.err = err; err == nil && len(records) > 0 {
		l.at, l.any = at+int64(len(records)), true
	}
	l.busy = false
	l.idle.Broadcast()
	l.mu.Unlock()
}

func (l *resumeLog) store(records []byte, at int64) error {
	if err := l.data(); err != nil {
		return err
	}
	if err := writeFull(l.f, records, at); err != nil {
		return err
	}
	return l.f.Sync()
}

// end records all that was added, and after that that the restore is whole, if it
// is.
func (l *resumeLog) end(whole bool) error {
	l.mu.Lock()
	for l.busy {
		l.idle.Wait()
	}
	if whole {
		l.pending = appendRecord(l.pending, l.key, wholeRecord, 0)
	}
	l.busy = true
	l.mu.Unlock()
	l.flush()
	return l.failed()
}

func (l *resumeLog) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// recorded reports that the journal has a record.
func (l *resumeLog) recorded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.any
}
