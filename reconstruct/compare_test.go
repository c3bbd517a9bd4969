package reconstruct

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"testing"
	"testing/synctest"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

func compare(t *testing.T, a, b qcow2.Disk, opts *CompareOptions) []bitmap.Range {
	t.Helper()
	var all []bitmap.Range
	for r, err := range Compare(t.Context(), a, b, opts) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// naiveCompare is the definition of what Compare yields.
func naiveCompare(a, b []byte) []bitmap.Range {
	at := func(p []byte, i int) byte {
		if i < len(p) {
			return p[i]
		}
		return 0
	}
	var all []bitmap.Range
	for i := range max(len(a), len(b)) {
		if at(a, i) == at(b, i) {
			continue
		}
		last := len(all) - 1
		if last >= 0 && int64(i)/512-(all[last].Off+all[last].Len-1)/512 <= 1 {
			all[last].Len = int64(i) + 1 - all[last].Off
		} else {
			all = append(all, bitmap.Range{Off: int64(i), Len: 1})
		}
	}
	return all
}

// similar is a disk with the content of d but for a few bytes, and stored in
// another way.
func similar(r *rand.Rand, d *fake) *fake {
	content := d.guest()
	for range r.IntN(40) {
		off := r.Int64N(int64(len(content)))
		for i := off; i < min(int64(len(content)), off+1+r.Int64N(2000)); i++ {
			content[i] ^= byte(r.IntN(3))
		}
	}
	if r.IntN(2) == 0 {
		content = append(content, make([]byte, r.IntN(3<<20))...)
		if r.IntN(2) == 0 {
			content[len(content)-1-r.IntN(100)] = 1
		}
	}
	return stored(r, content)
}

// stored is a disk with this content, where zeros may be stored in any way.
func stored(r *rand.Rand, content []byte) *fake {
	const block = 4096
	return newFakeOf(r, content, block, func(i int) qcow2.Kind {
		k := allKinds[r.IntN(len(allKinds))]
		if zeroish(qcow2.Extent{Kind: k}) && !allZero(content[i*block:min(len(content), (i+1)*block)]) {
			return qcow2.Data
		}
		return k
	})
}

func TestCompareAgainstModel(t *testing.T) {
	for seed := range uint64(25) {
		r := rand.New(rand.NewPCG(seed, 20))
		a := bigDisk(r, 1+r.Int64N(4<<20))
		b := similar(r, a)
		want := naiveCompare(a.guest(), b.guest())
		var last Progress
		opts := &CompareOptions{Workers: 1 + r.IntN(4), Memory: r.Int64N(20 << 20), Progress: func(p Progress) {
			if p.Done < last.Done || p.Done > p.Total {
				t.Errorf("progress %+v after %+v", p, last)
			}
			last = p
		}}
		if got := compare(t, a, b, opts); !reflect.DeepEqual(got, want) {
			t.Errorf("seed %d: got %v, want %v", seed, got, want)
		}
		if total := max(a.Size(), b.Size()); last.Done != total || last.Total != total {
			t.Errorf("progress ends with %+v", last)
		}
		last = Progress{}
		if got := compare(t, b, a, opts); !reflect.DeepEqual(got, want) {
			t.Errorf("seed %d, the other way round: got %v, want %v", seed, got, want)
		}
		last = Progress{}
		if got := compare(t, a, stored(r, a.guest()), opts); got != nil {
			t.Errorf("seed %d: stored in another way: %v", seed, got)
		}
	}
}

func TestCompareSizes(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 21))
	a, b := stored(r, make([]byte, 3<<20)), stored(r, make([]byte, 5<<20+1))
	var last Progress
	if got := compare(t, a, b, &CompareOptions{Progress: func(p Progress) { last = p }}); got != nil || last.Done != b.Size() {
		t.Errorf("a longer disk of zeros differs: %v, %+v", got, last)
	}
	zero := newFakeOf(r, make([]byte, 5<<20+1), 4096, func(int) qcow2.Kind { return qcow2.Zero })
	last = Progress{}
	if got := compare(t, zero, zero, &CompareOptions{Progress: func(p Progress) { last = p }}); got != nil || last.Done != b.Size() {
		t.Errorf("a disk differs from itself: %v, %+v", got, last)
	}
	for _, err := range Compare(t.Context(), a, b, &CompareOptions{Strict: true}) {
		var size *SizeError
		if !errors.As(err, &size) || size.A != 3<<20 || size.B != 5<<20+1 {
			t.Errorf("strict: %v", err)
		}
	}
}

// A difference that goes over the border of what is compared at a time is one.
func TestCompareBorder(t *testing.T) {
	r := rand.New(rand.NewPCG(25, 25))
	content := make([]byte, 3*compareUnit)
	for i := compareUnit - 700; i < 2*compareUnit+700; i++ {
		content[i] = 1
	}
	a, b := stored(r, make([]byte, len(content))), stored(r, content)
	want := []bitmap.Range{{Off: compareUnit - 700, Len: compareUnit + 1400}}
	if got := compare(t, a, b, nil); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// What is stored at the same place is not read.
func TestCompareSamePlace(t *testing.T) {
	r := rand.New(rand.NewPCG(22, 22))
	d := newFake(r, 3<<20, 4096, func(i int) qcow2.Kind { return qcow2.Data })
	other := *d
	other.content = append([]byte(nil), d.content...)
	other.shift += 4096
	for b, reads := range map[*fake]bool{d: false, &other: true} {
		read := int64(0)
		opts := &CompareOptions{Progress: func(p Progress) { read = p.Read }}
		for _, err := range Compare(t.Context(), d, b, opts) {
			if err != nil && !reads {
				t.Error(err)
			}
		}
		if (read > 0) != reads {
			t.Errorf("%d bytes read", read)
		}
	}
}

func TestCompareErrors(t *testing.T) {
	r := rand.New(rand.NewPCG(23, 23))
	good := newFake(r, 3<<20, 4096, func(int) qcow2.Kind { return qcow2.Data })
	cut := *good
	cut.content = append([]byte(nil), good.content...)
	cut.content[5] ^= 1
	cut.storage = io.NewSectionReader(stored(r, cut.content).storage, 0, 1<<20+5)
	refuses := randomFake(r, 3<<20, qcow2.Absent)
	refuses.absent = &qcow2.RefError{}
	for name, b := range map[string]qcow2.Disk{"cut": &cut, "refuses": refuses, "bad": badDisk{good, nil}} {
		synctest.Test(t, func(t *testing.T) {
			var errs []error
			for _, err := range Compare(t.Context(), good, b, nil) {
				if err != nil {
					errs = append(errs, err)
				}
			}
			var where *RangeError
			if len(errs) != 1 || !errors.As(errs[0], &where) {
				t.Errorf("%s: %v", name, errs)
			}
		})
	}
}

func TestCompareStops(t *testing.T) {
	r := rand.New(rand.NewPCG(24, 24))
	a := newFake(r, 20<<20, 4096, func(i int) qcow2.Kind { return allKinds[3+i%2] })
	b := newFake(r, 20<<20, 4096, func(i int) qcow2.Kind { return allKinds[3+i%2] })
	synctest.Test(t, func(t *testing.T) {
		for _, err := range Compare(t.Context(), a, b, nil) {
			if err != nil {
				t.Error(err)
			}
			break
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var last error
		for _, err := range Compare(ctx, a, b, nil) {
			cancel()
			last = err
		}
		if !errors.Is(last, context.Canceled) {
			t.Errorf("cancelled: %v", last)
		}
	})
}
