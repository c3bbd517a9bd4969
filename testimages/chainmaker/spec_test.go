package chainmaker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestSpecRefuses(t *testing.T) {
	for name, s := range map[string]Spec{
		"multiple of 512":          {Sizes: []int64{1<<20 + 1}},
		"at least 1 MiB":           {Resize: map[int]int64{1: 512}},
		"resize before increment":  {Resize: map[int]int64{7: 1 << 20}},
		"raw target takes no":      {Full: Target{Format: "raw", ClusterSize: 4096}},
		"neither qcow2 nor raw":    {Full: Target{Format: "vmdk"}},
		"neither extended L2":      {Targets: []Target{{Compat: "0.10", Compression: "zstd"}}},
		"has neither extended L2 ": {Targets: []Target{{}, {Compat: "0.10", ExtendedL2: true}}},
	} {
		if _, err := s.withDefaults(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want %q, got %v", name, err)
		}
	}
	if _, err := (Spec{}).withDefaults(); err != nil {
		t.Errorf("zero value: %v", err)
	}
}

func TestLossy(t *testing.T) {
	for _, c := range []struct {
		t    Target
		want bool
	}{
		{Target{}, false},
		{Target{Format: "raw"}, true},
		{Target{Backing: BackingNone}, false},
		{Target{Compat: "0.10"}, false},
		{Target{Compat: "0.10", Backing: BackingAttached}, false},
		{Target{Compat: "0.10", Backing: BackingNone}, true},
	} {
		if got := c.t.Lossy(); got != c.want {
			t.Errorf("%+v: lossy %v", c.t, got)
		}
	}
}

// The same seed does the same to the same disk; another seed or disk does not.
func TestSeed(t *testing.T) {
	all := func(seed, disk uint64) (ops []string) {
		g := newGuest(seed, disk, "noise")
		for point := range 3 {
			ops = append(ops, g.operations(point, 8, 4<<20)...)
		}
		return ops
	}
	first := all(1, 0)
	if !slices.Equal(first, all(1, 0)) || slices.Equal(first, all(2, 0)) || slices.Equal(first, all(1, 1)) {
		t.Errorf("seed 1 of disk 0: %q", first)
	}
}

// Operations stay on the disk and in whole sectors, whatever it shrank to.
func TestOperationsStayOnTheDisk(t *testing.T) {
	g := newGuest(1, 0, "noise")
	for point := range 200 {
		size := []int64{64 << 20, 1 << 20, 9<<20 + 512}[point%3]
		for _, op := range g.operations(point, 20, size) {
			var off, n int64
			fields := strings.Fields(op)
			if len(fields) < 2 {
				continue
			}
			if _, err := fmt.Sscan(strings.Join(fields[len(fields)-2:], " "), &off, &n); err != nil {
				t.Fatalf("%q: %v", op, err)
			}
			if off < 0 || n <= 0 || off+n > size || off%512 != 0 || n%512 != 0 {
				t.Fatalf("%q on a disk of %d bytes", op, size)
			}
		}
	}
}

func TestQuote(t *testing.T) {
	got, err := quote([]string{"a b", `{"c":"d"}`})
	if want := `'a b' '{"c":"d"}'`; err != nil || got != want {
		t.Errorf("quote: %s, want %s (%v)", got, want, err)
	}
	if _, err := quote([]string{"it's"}); err == nil {
		t.Error("a quote within an argument was taken")
	}
}

func TestDecodeAnswer(t *testing.T) {
	err := decodeAnswer("x", `{"error":{"class":"GenericError","desc":"no such node"}}`, nil)
	if err == nil || !strings.Contains(err.Error(), "no such node") {
		t.Errorf("error in an answer: %v", err)
	}
}
