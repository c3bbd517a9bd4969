package chainmaker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
)

// unit is what QEMU's backup copies at the least, whatever was dirty in it.
const unit = 64 << 10

// noiseSize is small so that frozen chains are.
const noiseSize = 8 << 10

type span struct{ off, n int64 }

// A guest makes up what a guest would do to its disk. The same seed does the same.
type guest struct {
	rng   *rand.Rand
	noise string // file of bytes that do not compress
	data  []span // what was written so far
}

func newGuest(seed, disk uint64, noise string) *guest {
	return &guest{rng: rand.New(rand.NewPCG(seed, disk)), noise: noise}
}

// operations are qemu-io's words for one interval on a disk of that size. Those
// before an increment begin by zeroing whole copy units that held data: what a
// target that cannot say "zero" gets wrong.
func (g *guest) operations(point, count int, size int64) []string {
	var ops []string
	if point > 0 && len(g.data) > 0 {
		ops = append(ops, g.zeroUnits(point, size))
	}
	for len(ops) < count {
		ops = append(ops, g.one(g.span(size), point))
	}
	return append(ops, "flush")
}

// zeroUnits takes the three ways of zeroing in turn.
func (g *guest) zeroUnits(point int, size int64) string {
	s := g.data[g.rng.IntN(len(g.data))]
	off := min(s.off, size-1) / unit * unit
	n := min(unit*(1+g.rng.Int64N(2)), size-off)
	verb := []string{"write -z", "write -z -u", "discard"}[point%3]
	return fmt.Sprintf("%s %d %d", verb, off, n)
}

// one does something to a range; a full backup's time is mostly spent writing.
func (g *guest) one(s span, point int) string {
	kind := g.rng.IntN(10)
	if point == 0 && kind > 6 {
		kind -= 5
	}
	switch {
	case kind < 5:
		g.data = append(g.data, s)
		return fmt.Sprintf("write -P %d %d %d", 1+g.rng.IntN(255), s.off, s.n)
	case kind < 7:
		s.n = min(s.n, 2*noiseSize)
		g.data = append(g.data, s)
		return fmt.Sprintf("write -s %s %d %d", g.noise, s.off, s.n)
	case kind == 7:
		return fmt.Sprintf("write -z %d %d", s.off, s.n)
	case kind == 8:
		return fmt.Sprintf("write -z -u %d %d", s.off, s.n)
	}
	return fmt.Sprintf("discard %d %d", s.off, s.n)
}

// span is a range in whole sectors: anywhere, over an earlier one, on a copy
// unit's border, or at the disk's very end.
func (g *guest) span(size int64) span {
	n := min(g.length(), size)
	off := g.rng.Int64N(size-n+1) / 512 * 512
	switch r := g.rng.IntN(10); {
	case r < 4 && len(g.data) > 0:
		off = g.data[g.rng.IntN(len(g.data))].off + (g.rng.Int64N(17)-8)*512
	case r < 7:
		off = off / unit * unit
	case r == 7:
		off = size - n
	}
	return span{max(0, min(off, size-n)), n}
}

// length goes from a sector to four copy units.
func (g *guest) length() int64 {
	switch g.rng.IntN(4) {
	case 0:
		return 512 * (1 + g.rng.Int64N(16))
	case 1:
		return unit + 512*(g.rng.Int64N(9)-4)
	case 2:
		return 512 * (1 + g.rng.Int64N(256))
	}
	return unit * (1 + g.rng.Int64N(4))
}

// act lets the guests work for one interval.
func (m *maker) act(ctx context.Context) error {
	count := m.spec.Writes
	if m.point == 0 {
		count *= 2
	}
	for _, d := range m.disks {
		if err := d.guest.freshNoise(); err != nil {
			return err
		}
		for _, op := range d.guest.operations(m.point, count, d.size) {
			if err := m.qemuIO(ctx, d, op); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *guest) freshNoise() error {
	b := make([]byte, noiseSize)
	for i := range b {
		b[i] = byte(g.rng.Uint32())
	}
	return os.WriteFile(g.noise, b, 0o644)
}
