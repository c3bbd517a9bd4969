package qcow2

import (
	"math/rand/v2"
	"testing"
)

// TestTableList adds references to tables at random, beside a map.
func TestTableList(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	views := []*checkView{{active: true}, {snapshot: "1"}, {snapshot: "2"}}
	list := tableList{max: 1000}
	for range 3 { // the passes of a check
		list.reset()
		refs, first := map[HostOffset]uint32{}, map[HostOffset]*checkView{}
		for i := range int64(6000) {
			host, v := HostOffset(rng.IntN(1500))<<9, views[i/2000]
			added := list.add(host, v, i)
			if _, known := refs[host]; added != (known || len(refs) < list.max) {
				t.Fatalf("adding %v to %d tables: %t", host, len(refs), added)
			}
			if !added {
				continue
			}
			if refs[host]++; refs[host] == 1 {
				first[host] = v
			}
		}
		if list.n != len(refs) || list.n != list.max {
			t.Fatalf("%d tables, not %d", list.n, len(refs))
		}
		for i := range list.n {
			if r := list.at(i); r.refs != refs[r.host] || list.view(r) != first[r.host] {
				t.Fatalf("%+v, wanted %d references", *r, refs[r.host])
			}
		}
	}
}

// TestWindowCounts counts references of every number, in every order, beside a map.
func TestWindowCounts(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var w window
	for range 20 {
		w.reset(64, 64+128, 1<<20)
		refs, uses := map[int64]uint64{}, map[int64]use{}
		for range 400 {
			c, n, u := 64+rng.Int64N(128), uint32(rng.IntN(3)), []use{useData, useL2, useRefBlock}[rng.IntN(3)]
			if rng.IntN(200) == 0 {
				n = 1 << rng.IntN(10)
			}
			w.mark(c, n, u)
			refs[c] += uint64(n)
			if uses[c] == unused {
				uses[c] = u
			}
		}
		for c := w.lo; c < w.hi; c++ {
			if w.references(c) != refs[c] || w.use(c) != uses[c] {
				t.Fatalf("cluster %d: %d references to %v, wanted %d to %v", c, w.references(c), w.use(c), refs[c], uses[c])
			}
		}
	}
}
