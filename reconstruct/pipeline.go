package reconstruct

import (
	"context"
	"sync"
)

// A pipeline plans units in order, works on several of them at once, and takes
// them in order again. A fixed number of units is reused, which bounds memory.
type pipeline[T any] struct {
	slots   int // units, at least 1
	workers int

	// plan runs in a goroutine of its own. It gets empty units from the feed,
	// fills and submits them; an error of the feed it returns.
	plan func(ctx context.Context, f *feed[T]) error
	// work runs in several goroutines.
	work func(*T) error
	// take runs in that of the caller. Afterwards the unit is reused.
	take func(*T) error
}

// A feed hands units between the goroutines of a pipeline.
type feed[T any] struct {
	ctx         context.Context
	free        chan *job[T]
	todo, order chan *job[T]
	made, slots int
}

type job[T any] struct {
	unit T
	err  error // of work
	done chan struct{}
}

// get returns a unit that is free, as it was left or new. It waits for one, and
// fails when the pipeline was stopped.
func (f *feed[T]) get() (*job[T], error) {
	if err := context.Cause(f.ctx); err != nil {
		return nil, err
	}
	select {
	case j := <-f.free:
		return j, nil
	default:
	}
	if f.made < f.slots {
		f.made++
		return &job[T]{done: make(chan struct{}, 1)}, nil
	}
	select {
	case j := <-f.free:
		return j, nil
	case <-f.ctx.Done():
		return nil, context.Cause(f.ctx)
	}
}

// submit passes a unit on. It never waits: there is room for all units, so that
// nobody has to take what is left after an error.
func (f *feed[T]) submit(j *job[T]) {
	f.order <- j
	f.todo <- j
}

// run ends when all is taken, or with the error that is first in the order of the
// units, or when ctx ends, with its cause. All its goroutines have ended by then.
func (p *pipeline[T]) run(parent context.Context) error {
	ctx, stop := context.WithCancelCause(parent)
	defer stop(nil)
	f := &feed[T]{ctx: ctx, slots: p.slots,
		free: make(chan *job[T], p.slots), todo: make(chan *job[T], p.slots), order: make(chan *job[T], p.slots)}
	var wg sync.WaitGroup
	var planned error
	wg.Go(func() {
		defer close(f.order)
		defer close(f.todo)
		planned = p.plan(ctx, f)
	})
	for range p.workers {
		wg.Go(func() { p.worker(f) })
	}
	if err := p.consume(f); err != nil {
		stop(err)
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return planned
}

func (p *pipeline[T]) worker(f *feed[T]) {
	for j := range f.todo {
		if j.err = context.Cause(f.ctx); j.err == nil {
			j.err = p.work(&j.unit)
		}
		j.done <- struct{}{}
	}
}

// consume takes the units in order, up to the first error.
func (p *pipeline[T]) consume(f *feed[T]) error {
	for j := range f.order {
		<-j.done
		if j.err != nil {
			return j.err
		}
		if err := p.take(&j.unit); err != nil {
			return err
		}
		f.free <- j
	}
	return nil
}
