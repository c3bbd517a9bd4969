package manifest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// A state is the slow model of a point: the checksum of each chunk.
type state struct {
	size int64
	sums []uint64
}

func (s state) root() Sum {
	var b []byte
	for _, sum := range s.sums {
		b = binary.BigEndian.AppendUint64(b, sum)
	}
	return Sum(xxhash.Sum64(binary.BigEndian.AppendUint64(b, uint64(s.size))))
}

// zeroAt is the checksum of a chunk of zeros there.
func (s state) zeroAt(chunk int64) uint64 {
	n := s.lengthOf(chunk)
	if _, known := zerosOf[n]; !known {
		zerosOf[n] = xxhash.Sum64(make([]byte, n))
	}
	return zerosOf[n]
}

var zerosOf = map[int64]uint64{}

// lengthOf is the length of a chunk, 0 for one that is not there.
func (s state) lengthOf(chunk int64) int64 { return max(0, min(ChunkSize, s.size-chunk*ChunkSize)) }

// drawPoint draws a point that stands on before, or on nothing.
func drawPoint(t *rapid.T, id string, parent *Point, before state) (*Point, state) {
	p := &Point{ID: id, Name: "cp-" + id, Kind: "full"}
	now := state{size: rapid.SampledFrom([]int64{0, 1, ChunkSize, 3*ChunkSize - 5, 6 * ChunkSize, 9*ChunkSize + 7}).Draw(t, "size")}
	if parent != nil {
		p.Kind, p.Parent = "incremental", &Parent{ID: parent.ID, Root: parent.Root}
		if rapid.IntRange(0, 2).Draw(t, "resize") > 0 {
			now.size = before.size
		}
	}
	for i := range Chunks(now.size) {
		must := parent != nil && before.lengthOf(i) != now.lengthOf(i)
		switch rapid.IntRange(0, 3).Draw(t, "chunk") {
		case 0:
			sum := rapid.Uint64().Draw(t, "sum")
			p.Runs.AddSum(i, sum)
			now.sums = append(now.sums, sum)
		case 1:
			p.Runs.AddZeros(i, 1)
			now.sums = append(now.sums, now.zeroAt(i))
		default:
			switch {
			case must:
				p.Runs.AddZeros(i, 1)
				now.sums = append(now.sums, now.zeroAt(i))
			case parent == nil:
				now.sums = append(now.sums, now.zeroAt(i))
			default:
				now.sums = append(now.sums, before.sums[i])
			}
		}
	}
	p.Size, p.Root = now.size, now.root()
	return p, now
}

// drawDisk draws a tree of points, with the truth about each.
func drawDisk(t *rapid.T) (*Disk, []state) {
	d := &Disk{Name: "vda", Domain: rapid.SampledFrom([]string{"", "vm"}).Draw(t, "domain")}
	var states []state
	for i := range rapid.IntRange(1, 9).Draw(t, "points") {
		var parent *Point
		var before state
		if j := rapid.IntRange(-1, i-1).Draw(t, "parent"); j >= 0 {
			parent, before = d.Points[j], states[j]
		}
		p, now := drawPoint(t, fmt.Sprint("p", i), parent, before)
		p.Files = []File{{Path: "a/" + p.ID, Size: int64(i), Sum: Sum(i)}}
		d.Put(p)
		states = append(states, now)
	}
	return d, states
}

// TestView: through all parents a view says what the slow model says.
func TestView(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, states := drawDisk(t)
		for i, p := range d.Points {
			v, err := d.View(p.ID)
			if err != nil {
				t.Fatal(err)
			}
			if rapid.Bool().Draw(t, "one by one") {
				var parent *View
				if p.Parent != nil {
					parent = mustView(t, d, p.Parent.ID)
				}
				if v, err = NewView(p, parent); err != nil {
					t.Fatal(err)
				}
			}
			for c, want := range states[i].sums {
				if got, known := v.Chunk(int64(c)); got != want || !known {
					t.Fatalf("point %s, chunk %d: %x, %v; want %x", p.ID, c, got, known, want)
				}
			}
			for _, c := range []int64{-1, Chunks(p.Size), 1 << 62} {
				if _, known := v.Chunk(c); known {
					t.Fatalf("point %s: chunk %d is known", p.ID, c)
				}
			}
			if err := v.Check(); err != nil {
				t.Fatal(err)
			}
			p.Root++
			if v.Check() == nil {
				t.Fatal("a wrong root is not found")
			}
			p.Root--
		}
	})
}

// TestRoundTrip: what was written is read, and written again the same.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, _ := drawDisk(t)
		d.Points[0].Assumed = rapid.Bool().Draw(t, "assumed")
		d.Points[0].Files = append(d.Points[0].Files, File{Path: "z.zip", Member: "m/é \"q\"", Sum: 1 << 63, SHA256: strings.Repeat("0a", 32)})
		m := &Manifest{Disks: []*Disk{d, {Name: "other \n disk"}}}
		var b, again bytes.Buffer
		if err := m.Encode(&b); err != nil {
			t.Fatal(err)
		}
		doc := b.String()
		got, err := Decode(&b, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		if diff := cmp.Diff(m, got, cmpopts.IgnoreUnexported(Disk{}), cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
		if err := got.Encode(&again); err != nil || again.String() != doc {
			t.Fatalf("written again it is\n%s\n%v", again.String(), err)
		}
	})
}

// TestLarge: a disk of 64 TiB that is empty but for a little, and its document, are
// small, and long runs of checksums survive being cut into lines.
func TestLarge(t *testing.T) {
	d := &Disk{Name: "vda"}
	full := &Point{ID: "full", Name: "full", Kind: "full", Size: 64 << 40}
	for i := range int64(3000) {
		full.Runs.AddSum(i+1000, uint64(i))
	}
	d.Put(full)
	full.Root = mustView(t, d, "full").Root()
	inc := &Point{ID: "inc", Name: "inc", Kind: "incremental", Size: 64 << 40, Parent: &Parent{"full", full.Root}}
	inc.Runs.AddZeros(0, Chunks(inc.Size)-1)
	inc.Runs.AddSum(Chunks(inc.Size)-1, 42)
	d.Put(inc)
	inc.Root = mustView(t, d, "inc").Root()
	var b bytes.Buffer
	if err := (&Manifest{Disks: []*Disk{d}}).Encode(&b); err != nil {
		t.Fatal(err)
	}
	if b.Len() > 100<<10 {
		t.Errorf("the document has %d bytes", b.Len())
	}
	m, err := Decode(&b, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := mustView(t, m.Disks[0], "full")
	if sum, _ := v.Chunk(3999); sum != 2999 || v.Check() != nil {
		t.Errorf("chunk 3999 has %x", sum)
	}
	if err := mustView(t, m.Disks[0], "inc").Check(); err != nil {
		t.Error(err)
	}
}

func mustView(t interface{ Fatal(...any) }, d *Disk, id string) *View {
	v, err := d.View(id)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestPutRemove(t *testing.T) {
	d := &Disk{}
	a, b, c := &Point{ID: "a"}, &Point{ID: "b"}, &Point{ID: "a", Name: "new"}
	d.Put(a)
	d.Put(b)
	d.Put(c)
	if len(d.Points) != 2 || d.Points[0] != c || d.Point("a") != c || d.Point("b") != b {
		t.Fatalf("%v", d.Points)
	}
	d.Remove("a")
	if len(d.Points) != 1 || d.Point("a") != nil || d.Point("b") != b {
		t.Fatalf("%v", d.Points)
	}
	m := &Manifest{}
	made := m.AddDisk("vm", "vda")
	if m.AddDisk("vm", "vda") != made || m.Disk("", "vda") != nil || len(m.Disks) != 1 {
		t.Fatal("a disk is found by domain and name")
	}
}

// BenchmarkView resolves the last point of a thousand, each of which changed a
// hundred places of a disk of 1 TiB.
func BenchmarkView(b *testing.B) {
	d := &Disk{Name: "vda"}
	for i := range 1000 {
		p := &Point{ID: fmt.Sprint(i), Size: 1 << 40}
		if i > 0 {
			p.Parent = &Parent{ID: fmt.Sprint(i - 1)}
		}
		for j := range int64(100) {
			p.Runs.AddSum(j*2600+int64(i*7%2600), uint64(i))
		}
		d.Put(p)
	}
	for b.Loop() {
		v := mustView(b, d, "999")
		if _, known := v.Chunk(77); !known {
			b.Fatal("unknown")
		}
	}
}
