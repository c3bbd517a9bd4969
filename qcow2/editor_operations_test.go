package qcow2_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/qbitkit/qbit/bitmap"
)

// An operation plans a transaction on a trial.
type operation struct {
	name string
	plan func(p *planner)
}

// A planner collects changes of bitmaps that there are.
type planner struct {
	*rand.Rand
	size    int64
	now     trialBitmaps
	changes []change
}

// plan is the changes of an operation; none where it makes no sense.
func (o operation) on(c *trial) []change {
	p := &planner{Rand: rand.New(rand.NewPCG(11, uint64(len(c.file)))), size: c.size, now: c.bitmaps}
	o.plan(p)
	if c.size == 0 && slices.ContainsFunc(p.changes, func(c change) bool { return c.bits != nil }) {
		return nil // there are no bitmaps of no bytes
	}
	return p.changes
}

func (p *planner) add(c change) {
	p.changes = append(p.changes, c)
	p.now = p.now.after(c)
}

// usable is the name of a bitmap that may be used, which of them by where: 0 the
// first, 1 the last; empty without one.
func (p *planner) usable(where float64) string {
	var names []string
	for i := range p.now {
		if p.now[i].usable() {
			names = append(names, p.now[i].name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return names[int(where*float64(len(names)-1))]
}

// any is a name of any bitmap, as usable is.
func (p *planner) any(where float64) string {
	if len(p.now) == 0 {
		return ""
	}
	return p.now[int(where*float64(len(p.now)-1))].name
}

// forUsable plans a change of a usable bitmap, where there is one.
func (p *planner) forUsable(where float64, f func(name string) change) {
	if name := p.usable(where); name != "" {
		p.add(f(name))
	}
}

// granularity of a bitmap that there is.
func (p *planner) granularity(name string) int64 { return p.now[p.now.find(name)].granularity }

// sparse has few dirty bytes.
func (p *planner) sparse(granularity int64) *bitmap.Bitmap {
	b := newBits(p.size, granularity)
	for range 3 {
		b.Set(p.Int64N(p.size+1), 1+p.Int64N(3*granularity))
	}
	return b
}

// dense has half of its granules dirty, in no order.
func (p *planner) dense(granularity int64) *bitmap.Bitmap {
	b := newBits(p.size, granularity)
	for off := int64(0); off < p.size; off += granularity {
		if p.IntN(2) == 0 {
			b.Set(off, 1)
		}
	}
	return b
}

func filledBits(size, granularity int64) *bitmap.Bitmap {
	b := newBits(size, granularity)
	b.SetAll()
	return b
}

// replace plans other bits for the bitmap at a place.
func replaceBy(bits func(p *planner, granularity int64) *bitmap.Bitmap) func(*planner) {
	return func(p *planner) {
		p.forUsable(0.5, func(name string) change {
			return change{kind: replaceBitmap, name: name, bits: bits(p, p.granularity(name))}
		})
	}
}

func removeAt(where float64) func(*planner) {
	return func(p *planner) {
		if name := p.any(where); name != "" {
			p.add(change{kind: removeBitmap, name: name})
		}
	}
}

// operations are all that an Editor can do.
func operations() []operation {
	return []operation{
		{"add, clean", func(p *planner) {
			p.add(change{kind: addBitmap, name: "new", bits: newBits(p.size, 65536), auto: true})
		}},
		{"add, sparse", func(p *planner) { p.add(change{kind: addBitmap, name: "new", bits: p.sparse(512)}) }},
		{"add, dense", func(p *planner) { p.add(change{kind: addBitmap, name: "new", bits: p.dense(512)}) }},
		{"add, full", func(p *planner) { p.add(change{kind: addBitmap, name: "new", bits: filledBits(p.size, 1024)}) }},
		{"add many", addMany},
		{"replace, sparse", replaceBy((*planner).sparse)},
		{"replace, dense", replaceBy((*planner).dense)},
		{"clear", replaceBy(func(p *planner, g int64) *bitmap.Bitmap { return newBits(p.size, g) })},
		{"fill", replaceBy(func(p *planner, g int64) *bitmap.Bitmap { return filledBits(p.size, g) })},
		{"remove first", removeAt(0)},
		{"remove middle", removeAt(0.5)},
		{"remove last", removeAt(1)},
		{"remove all", func(p *planner) {
			for len(p.now) > 0 {
				removeAt(0.6)(p)
			}
		}},
		{"rename", func(p *planner) {
			p.forUsable(0, func(name string) change { return change{kind: renameBitmap, name: name, to: "renamed"} })
		}},
		{"set auto", func(p *planner) {
			p.forUsable(0.5, func(name string) change { return change{kind: setAuto, name: name, auto: true} })
		}},
		{"drop all", func(p *planner) {
			if len(p.now) > 0 {
				p.add(change{kind: dropAll})
			}
		}},
		{"drop all, add", func(p *planner) {
			p.add(change{kind: dropAll})
			p.add(change{kind: addBitmap, name: "new", bits: p.sparse(512)})
		}},
		{"several", several},
	}
}

// addMany makes the directory longer than a cluster of 512 bytes.
func addMany(p *planner) {
	for i := range 6 {
		name := fmt.Sprintf("new %d %s", i, strings.Repeat("n", 1<<i))
		p.add(change{kind: addBitmap, name: name, bits: p.sparse(512 << i), auto: i%2 == 0})
	}
}

// several does one of each.
func several(p *planner) {
	p.add(change{kind: addBitmap, name: "new", bits: p.sparse(512)})
	p.forUsable(0.9, func(name string) change { return change{kind: setAuto, name: name} })
	replaceBy((*planner).dense)(p)
	removeAt(0.3)(p)
	p.forUsable(0.7, func(name string) change {
		return change{kind: renameBitmap, name: name, to: strings.Repeat("long ", 60)}
	})
	p.add(change{kind: addBitmap, name: "another", bits: p.dense(4096), auto: true})
}
