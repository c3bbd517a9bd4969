package virtnbd

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	// stretchSize is about how many bytes of the file are one piece of work.
	stretchSize = 4 << 20
	// verifyWorkers is how many goroutines verify a stream at the most.
	verifyWorkers = 8
)

// A stretch is a part of a file that one goroutine verifies. Of an LZ4 stream it is
// whole frames. Of a plain one it is any bytes, of which only the sum is taken; another
// stretch is all frames of the file, which needs their headers alone.
type stretch struct {
	from, to int64
	frames   bool // its frames are verified
	bytes    bool // all of it is read, and summed
	sum      adler
	found    findings
	payloads []payload
	data     int64 // the lengths of its data frames
	broken   bool  // no frame can be found from somewhere in it on
	err      error
	done     chan struct{}
}

// A payload is what the trailer tells of a data frame.
type payload struct {
	total int64
	parts []int64 // sizes of its LZ4 frames
}

// A verifyRun is one Verify.
type verifyRun struct {
	s        *Stream
	summing  bool
	progress func(int64)
	read     atomic.Int64
	moved    chan struct{} // says that more was read

	// Of the stretches that were taken:
	sum     adler
	found   findings
	data    int64
	broken  bool
	trailer trailerReader
}

func (s *Stream) verify(ctx context.Context, progress func(int64), summing bool) (uint32, error) {
	r := verifyRun{s: s, summing: summing, progress: progress, moved: make(chan struct{}, 1), sum: newAdler()}
	r.trailer = trailerReader{t: tape{r: s.r, size: s.size, buf: make([]byte, walkAhead), pos: s.end},
		end: s.size - headerLen - 2, done: !s.tally.Trailer}
	if err := r.run(ctx); err != nil {
		return 0, fmt.Errorf("verifying a stream: %w", err)
	}
	sum := r.sum.sum()
	if !summing {
		sum = 0
	}
	if len(r.found.all) > 0 {
		return sum, &r.found
	}
	return sum, nil
}

// run verifies all stretches. Its goroutines have ended when it returns.
func (r *verifyRun) run(parent context.Context) error {
	ctx, stop := context.WithCancel(parent)
	defer stop()
	workers := min(runtime.GOMAXPROCS(0), verifyWorkers)
	todo, order := make(chan *stretch, 2*workers+1), make(chan *stretch, 2*workers)
	var wg sync.WaitGroup
	frames := r.framesOfPlain()
	wg.Go(func() {
		defer close(todo)
		defer close(order)
		if frames != nil {
			todo <- frames
		}
		r.feed(ctx, todo, order)
	})
	for range workers {
		wg.Go(func() { r.worker(ctx, todo) })
	}
	err := r.takeAll(ctx, order, frames)
	stop()
	wg.Wait()
	return err
}

// framesOfPlain is the work of looking at the frames of a plain stream; nil for an
// LZ4 one, whose stretches are frames.
func (r *verifyRun) framesOfPlain() *stretch {
	if r.s.meta.Compressed {
		return nil
	}
	return newStretch(0, r.s.end, true, false)
}

func newStretch(from, to int64, frames, bytes bool) *stretch {
	return &stretch{from: from, to: to, frames: frames, bytes: bytes, sum: newAdler(), done: make(chan struct{})}
}

// feed hands out the stretches of the file in order, not more than fit into order
// before they are taken.
func (r *verifyRun) feed(ctx context.Context, todo, order chan *stretch) {
	from := int64(0)
	submit := func(to int64) bool {
		st := newStretch(from, to, r.s.meta.Compressed, true)
		from = to
		select {
		case order <- st:
			todo <- st
			return true
		case <-ctx.Done():
			return false
		}
	}
	if !r.s.meta.Compressed {
		for from < r.s.size && submit(min(from+stretchSize, r.s.size)) {
		}
		return
	}
	for _, to := range r.s.marks {
		if !submit(to) {
			return
		}
	}
	submit(r.s.end)
}

// worker verifies stretches.
func (r *verifyRun) worker(ctx context.Context, todo chan *stretch) {
	v := verifier{s: r.s, t: tape{r: r.s.r, buf: make([]byte, verifyAhead)}}
	v.lz4.t = &v.t
	for st := range todo {
		if st.err = context.Cause(ctx); st.err == nil {
			st.err = v.verify(st, func(p []byte) error { return r.seen(ctx, st, p) })
		}
		close(st.done)
	}
}

// seen takes what was read of a stretch.
func (r *verifyRun) seen(ctx context.Context, st *stretch, p []byte) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if r.summing {
		st.sum.write(p)
	}
	n := int64(len(p))
	if read := r.read.Add(n); read/stretchSize != (read-n)/stretchSize {
		select {
		case r.moved <- struct{}{}:
		default:
		}
	}
	return nil
}

// takeAll takes what was found, in the order of the file.
func (r *verifyRun) takeAll(ctx context.Context, order chan *stretch, frames *stretch) error {
	for st := range order {
		if err := r.await(ctx, st); err != nil {
			return err
		}
		if err := r.take(st); err != nil {
			return err
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if frames != nil {
		if err := r.await(ctx, frames); err != nil {
			return err
		}
		if err := r.take(frames); err != nil {
			return err
		}
	}
	return r.end(ctx)
}

// await waits for a stretch and tells of progress.
func (r *verifyRun) await(ctx context.Context, st *stretch) error {
	for {
		select {
		case <-st.done:
			r.tell()
			if err := context.Cause(ctx); err != nil {
				return err
			}
			return st.err
		case <-r.moved:
			r.tell()
		}
	}
}

func (r *verifyRun) tell() {
	if r.progress != nil {
		r.progress(r.read.Load())
	}
}

// take adds what was found in a stretch. Behind one in which the structure is broken
// only the sum goes on.
func (r *verifyRun) take(st *stretch) error {
	r.sum.join(st.sum)
	if r.broken {
		return nil
	}
	r.found.join(&st.found)
	r.data += st.data
	r.broken = st.broken
	for _, p := range st.payloads {
		if err := r.found.add(r.trailer.compare(p.total, p.parts)); err != nil {
			return err
		}
	}
	return nil
}

// end verifies what belongs to the stream as a whole, and sums up what is behind it.
func (r *verifyRun) end(ctx context.Context) error {
	if !r.broken {
		for _, check := range []func() error{r.checkData, r.checkTrailer} {
			if err := r.found.add(check()); err != nil {
				return err
			}
		}
	}
	if !r.s.meta.Compressed {
		return nil // the last stretch reached the end of the file
	}
	rest := newStretch(r.s.end, r.s.size, false, true)
	t := tape{r: r.s.r, size: rest.to, pos: rest.from, buf: make([]byte, verifyAhead),
		seen: func(p []byte) error { return r.seen(ctx, rest, p) }}
	err := t.pass(t.left())
	r.sum.join(rest.sum)
	r.tell()
	return err
}

// checkData compares the length of all data frames with what the meta frame says.
func (r *verifyRun) checkData() error {
	want := r.s.meta.DataSize
	if want < 0 || want == r.data {
		return nil
	}
	return formatError("meta frame", "dataSize", headerLen, number(want), fmt.Sprintf("the data frames have %d bytes", r.data))
}

// checkTrailer expects the end of the trailer, or that there is none.
func (r *verifyRun) checkTrailer() error {
	if r.s.tally.Trailer {
		return r.trailer.finish()
	}
	if n := r.s.size - r.s.end; n > 0 {
		return formatError("trailer", "frame", r.s.end, "",
			fmt.Sprintf("%d bytes follow the stop frame that are no whole trailer", n))
	}
	return nil
}
