package inflate

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"math/bits"
	"math/rand/v2"
	"testing"
)

// A stream is deflate that is written bit by bit.
type stream struct {
	b []byte
	n uint // bits
}

// put appends n bits of v, the lowest first.
func (s *stream) put(v, n uint) *stream {
	for i := range n {
		if s.n%8 == 0 {
			s.b = append(s.b, 0)
		}
		s.b[s.n/8] |= byte(v>>i&1) << (s.n % 8)
		s.n++
	}
	return s
}

// code appends a code of n bits, the highest first.
func (s *stream) code(c, n uint) *stream {
	return s.put(uint(bits.Reverse16(uint16(c)))>>(16-n), n)
}

// fixed appends a symbol in the code of section 3.2.6.
func (s *stream) fixed(symbol uint) *stream {
	switch {
	case symbol < 144:
		return s.code(0x30+symbol, 8)
	case symbol < 256:
		return s.code(0x190+symbol-144, 9)
	case symbol < 280:
		return s.code(symbol-256, 7)
	}
	return s.code(0xc0+symbol-280, 8)
}

// dynamic begins a block that has codes of these lengths. Each length is written with
// four bits, so that there is a code for all of 0 to 15.
func (s *stream) dynamic(last uint, lits, dists []uint8) *stream {
	s.put(last, 1).put(2, 2).put(uint(len(lits)-257), 5).put(uint(len(dists)-1), 5).put(15, 4)
	for _, symbol := range preOrder {
		l := uint(4)
		if symbol > 15 {
			l = 0
		}
		s.put(l, 3)
	}
	for _, lens := range [][]uint8{lits, dists} {
		for _, l := range lens {
			s.code(uint(l), 4)
		}
	}
	return s
}

// lengths are those of n codes: of the symbols that are named those given, and otherwise 0.
func lengths(n int, of map[int]uint8) []uint8 {
	lens := make([]uint8, n)
	for symbol, l := range of {
		lens[symbol] = l
	}
	return lens
}

// same has a stream decoded like the standard library does, to size bytes; the result is
// what came out.
func same(t *testing.T, s []byte, size int) ([]byte, error) {
	t.Helper()
	got := make([]byte, size)
	n, err := new(Decoder).Decode(got, s)
	want := make([]byte, size)
	m, wantErr := io.ReadFull(flate.NewReader(bytes.NewReader(s)), want)
	if n != m || (err == nil) != (wantErr == nil) || !bytes.Equal(got[:n], want[:m]) {
		t.Fatalf("%d bytes, %v; the standard library gives %d, %v", n, err, m, wantErr)
	}
	var ours *CorruptError
	var theirs flate.CorruptInputError
	if errors.As(err, &ours) != errors.As(wantErr, &theirs) {
		t.Fatalf("%v; the standard library says %v", err, wantErr)
	}
	return got[:n], err
}

func TestClusters(t *testing.T) {
	var d Decoder
	for _, c := range corpora(t) {
		for _, z := range deflaters() {
			t.Run(c.name+"/"+z.name, func(t *testing.T) {
				for i, cluster := range c.clusters[:min(len(c.clusters), 3)] {
					dst := make([]byte, len(cluster))
					if n, err := d.Decode(dst, z.compress(t, cluster)); err != nil || n != len(dst) || !bytes.Equal(dst, cluster) {
						t.Fatalf("cluster %d: %d bytes, %v; the right ones: %v", i, n, err, bytes.Equal(dst, cluster))
					}
				}
			})
		}
	}
}

// TestMatches has matches of each length and each distance code, with all of their extra
// bits 0 and 1, at the end of the output and far from it.
func TestMatches(t *testing.T) {
	before := make([]byte, 32768)
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range before {
		before[i] = byte(rng.Uint32())
	}
	for l := range uint(29) {
		for distance := range uint(30) {
			for _, ones := range []uint{0, ^uint(0)} {
				s := new(stream).put(0, 3).put(0, 5) // stored
				s.put(0x8000, 16).put(0x7fff, 16)
				s.b, s.n = append(s.b, before...), s.n+8*uint(len(before))
				extra, extraDistance := uint(litSymbols[257+l]&entryBits), uint(distSymbols[distance]&entryBits)
				s.put(1|1<<1, 3).fixed(257+l).put(ones&(1<<extra-1), extra)
				s.code(distance, 5).put(ones&(1<<extraDistance-1), extraDistance)
				s.fixed('x').fixed(256)
				length := int(litSymbols[257+l]>>16) + int(ones&(1<<extra-1))
				for _, room := range []int{-1, 0, 1} {
					if _, err := same(t, s.b, len(before)+length+1+room); (err == nil) != (room <= 0) {
						t.Fatalf("length %d, distance code %d, room for %d more: %v", length, distance, room, err)
					}
				}
				s.b = append(s.b, make([]byte, 64)...)
				checkFar(t, s.b, len(before)+length+1)
			}
		}
	}
}

// checkFar decodes where the output has room for the fast loop, and is cut for it after n
// bytes by the end of the stream.
func checkFar(t *testing.T, s []byte, n int) {
	t.Helper()
	if got, err := same(t, s, n+1000); err != ErrEnd || len(got) != n {
		t.Fatalf("%d bytes, %v; want %d", len(got), err, n)
	}
}

func TestOverlaps(t *testing.T) {
	for distance := range 40 {
		for length := 3; length <= 258; length += 3 {
			var out bytes.Buffer
			w, err := flate.NewWriter(&out, 9)
			if err != nil {
				t.Fatal(err)
			}
			period := make([]byte, distance+1)
			for i := range period {
				period[i] = byte(17*i + 1)
			}
			content := append(bytes.Repeat(period, length/len(period)+2), "no more"...)
			content = append(content, bytes.Repeat(period, 2000/len(period))...)
			if _, err := w.Write(content); err != nil || w.Close() != nil {
				t.Fatal(err)
			}
			if got, err := same(t, out.Bytes(), len(content)); err != nil || !bytes.Equal(got, content) {
				t.Fatalf("period %d, length %d: %v", distance+1, length, err)
			}
		}
	}
}

func TestBlocks(t *testing.T) {
	stored := func(last uint, content string) *stream {
		s := new(stream).put(last, 3).put(0, 5).put(uint(len(content)), 16).put(^uint(len(content)), 16)
		s.b = append(s.b, content...)
		s.n += 8 * uint(len(content))
		return s
	}
	abc := lengths(257, map[int]uint8{'a': 2, 'b': 2, 'c': 2, 256: 2})
	tests := []struct {
		name string
		s    *stream
		want string
		err  any // what errors.Is or errors.As finds; nil: none
	}{
		{"nothing", new(stream), "", ErrCut},
		{"stored", stored(1, "abc"), "abc", nil},
		{"stored, no last block", stored(0, "abc"), "abc", nil},
		{"stored, longer", stored(1, "abcdef"), "abc", nil},
		{"stored, shorter", stored(1, "ab"), "ab", ErrEnd},
		{"stored, nothing", stored(1, ""), "", ErrEnd},
		{"stored, cut", &stream{b: stored(1, "abc").b[:7]}, "ab", ErrCut},
		{"stored, cut behind what is wanted", &stream{b: stored(1, "abcdef").b[:8]}, "abc", nil},
		{"stored, cut in its length", &stream{b: stored(1, "abc").b[:4]}, "", ErrCut},
		{"stored, the length twice", new(stream).put(1, 8).put(3, 16).put(3, 16).put(0, 24), "", new(*CorruptError)},
		{"two stored", stored(0, "").put(1, 8).put(3, 16).put(^uint(3), 16).put('a'|'b'<<8|'c'<<16, 24), "abc", nil},
		{"type 3", new(stream).put(7, 3).put(0, 29), "", new(*CorruptError)},
		{"fixed", new(stream).put(3, 3).fixed('a').fixed('b').fixed('c').fixed(256), "abc", nil},
		{"fixed, no end", new(stream).put(3, 3).fixed('a').fixed('b').fixed('c').put(0, 7), "abc", nil},
		{"fixed, shorter", new(stream).put(3, 3).fixed('a').fixed(256), "a", ErrEnd},
		{"fixed, cut", new(stream).put(3, 3).fixed('a'), "a", ErrCut},
		{"fixed, a match", new(stream).put(3, 3).fixed('a').fixed(257).code(0, 5), "aaa", nil},
		{"fixed, a match of what is not there", new(stream).put(3, 3).fixed('a').fixed(257).code(1, 5).put(0, 9), "a", new(*CorruptError)},
		{"fixed, symbol 286", new(stream).put(3, 3).fixed('a').fixed(286).put(0, 19), "a", new(*CorruptError)},
		{"fixed, symbol 287", new(stream).put(3, 3).fixed('a').fixed(287).put(0, 19), "a", new(*CorruptError)},
		{"fixed, distance 30", new(stream).put(3, 3).fixed('a').fixed(257).code(30, 5).put(0, 19), "a", new(*CorruptError)},
		{"fixed, distance 31", new(stream).put(3, 3).fixed('a').fixed(257).code(31, 5).put(0, 19), "a", new(*CorruptError)},
		{"fixed, cut in what could be distance 30", new(stream).put(3, 3).fixed(200).fixed(200).fixed(257).code(15, 4), "\xc8\xc8", ErrCut},
		{"dynamic", new(stream).dynamic(1, abc, []uint8{0}).code(0, 2).code(1, 2).code(2, 2).code(3, 2), "abc", nil},
		{"dynamic, then fixed", new(stream).dynamic(0, abc, []uint8{0}).code(0, 2).code(3, 2).put(3, 3).fixed('b').fixed('c').fixed(256), "abc", nil},
		{"fixed, then dynamic", new(stream).put(2, 3).fixed('a').fixed(256).dynamic(1, abc, []uint8{0}).code(1, 2).code(2, 2).code(3, 2), "abc", nil},
		{"dynamic, 287 literals", new(stream).put(5, 3).put(30, 5).put(0, 40), "", new(*CorruptError)},
		{"fixed, dynamic, fixed", new(stream).put(2, 3).fixed('a').fixed(256).dynamic(0, abc, []uint8{0}).code(1, 2).code(3, 2).put(3, 3).fixed('c').fixed(256), "abc", nil},
		{"dynamic, 32 distances", new(stream).dynamic(1, abc, bytes.Repeat([]byte{5}, 32)).code(0, 2).put(0, 20), "", new(*CorruptError)},
		{"dynamic, three codes of one bit", new(stream).dynamic(1, lengths(257, map[int]uint8{'a': 1, 'b': 1, 256: 1}), []uint8{0}).put(0, 20), "", new(*CorruptError)},
		{"dynamic, cut in the counts", new(stream).put(5, 3).put(0, 5), "", ErrCut},
		{"dynamic, a first length that repeats", new(stream).put(5, 3).put(0, 14).put(1, 3).put(1, 3).put(0, 6).put(0, 40), "", new(*CorruptError)},
		{"dynamic, more lengths than codes", new(stream).put(5, 3).put(0, 14).put(0, 6).put(1, 3).put(1, 3).put(0xffffffff, 32), "", new(*CorruptError)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			checkBlocks(t, tt.s.b, tt.want, tt.err)
			if long := append(bytes.Clone(tt.s.b), make([]byte, 300)...); tt.err != ErrCut {
				same(t, long, 400) // in the fast loop
			}
		})
	}
}

func checkBlocks(t *testing.T, s []byte, want string, wantErr any) {
	t.Helper()
	got, err := same(t, s, 3)
	if string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	switch e := wantErr.(type) {
	case nil:
		if err != nil {
			t.Error(err)
		}
	case error:
		if !errors.Is(err, e) {
			t.Errorf("%v, want %v", err, e)
		}
	default:
		if !errors.As(err, e) {
			t.Errorf("%v, want a CorruptError", err)
		}
	}
}

// TestEndsWithoutEnd decodes a stream of which fewer bits are left than the end of a block
// has. The standard library does not.
func TestEndsWithoutEnd(t *testing.T) {
	lits := lengths(257, map[int]uint8{'a': 1, 'b': 2, 256: 15, 0: 15, 1: 14, 2: 13, 3: 12, 4: 11, 5: 10, 6: 9, 7: 8, 8: 7, 9: 6, 10: 5, 11: 4, 12: 3})
	s := new(stream).dynamic(1, lits, []uint8{0})
	for s.n%8 != 0 {
		s.code(0, 1) // a
	}
	n := int(s.n) - (17 + 19*3 + 258*4)
	got := make([]byte, n)
	if m, err := new(Decoder).Decode(got, s.b); err != nil || m != n || !bytes.Equal(got, bytes.Repeat([]byte("a"), n)) {
		t.Fatalf("%d of %d bytes, %v: %q", m, n, err, got)
	}
	if m, err := new(Decoder).Decode(make([]byte, n+1), s.b); err != ErrCut || m != n {
		t.Fatalf("%d bytes, %v; want %d and ErrCut", m, err, n)
	}
}

// TestCuts cuts streams at each byte. Beyond what the standard library decodes of them only
// such bytes may come out as it gives whatever follows.
func TestCuts(t *testing.T) {
	for _, z := range deflaters() {
		content := bytes.Join([][]byte{installed(700), prose(rand.New(rand.NewPCG(9, 9)), 700), make([]byte, 300), []byte("the end")}, nil)
		whole := z.compress(t, content)
		for n := range whole {
			checkCut(t, whole[:n:n], len(content))
		}
	}
	far := new(stream).dynamic(1, lengths(285, map[int]uint8{'a': 1, 256: 15, 284: 15, 283: 14, 282: 13, 281: 12, 280: 11, 279: 10, 278: 9, 277: 8, 276: 7, 275: 6, 274: 5, 273: 4, 272: 3, 271: 2}),
		lengths(29, map[int]uint8{0: 1, 1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7, 7: 8, 8: 9, 9: 10, 10: 10}))
	header := len(far.b)
	far.put(0, 60) // a, over and over
	for i := range uint(40) {
		far.code(0, 1).code(0x7fff, 15).put(i, 5).code(0x3ff, 10).put(i, 4)
	}
	for n := header; n < len(far.b); n++ {
		checkCut(t, far.b[:n:n], 12000)
	}
	if _, err := same(t, far.b, 9000); err != nil {
		t.Error(err)
	}
}

func checkCut(t *testing.T, s []byte, size int) {
	t.Helper()
	got := make([]byte, size)
	n, err := new(Decoder).Decode(got, s)
	for i, more := range [][]byte{nil, make([]byte, 8), bytes.Repeat([]byte{0xff}, 8)} {
		want := make([]byte, size)
		m, _ := io.ReadFull(flate.NewReader(bytes.NewReader(append(s, more...))), want)
		if i == 0 && m > n || i > 0 && m < n || !bytes.Equal(got[:min(n, m)], want[:min(n, m)]) {
			t.Fatalf("%d bytes of a stream cut at %d, %v; the standard library gives %d with %d bytes behind it", n, len(s), err, m, len(more))
		}
	}
}

// TestCodes tries codes of all kinds, most of which are not complete or say two things, and
// what follows them is any bits.
func TestCodes(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	accepted := 0
	for i := range 20000 {
		lits := randomCode(rng, 257+rng.IntN(30), i%5 == 0)
		dists := randomCode(rng, 1+rng.IntN(30), i%7 == 0)
		s := new(stream).dynamic(1, lits, dists)
		for range 200 {
			s.put(uint(rng.Uint32()), 32)
		}
		_, err := same(t, s.b, 500)
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || corrupt.Off > int64(17+19*3+len(lits)*4+len(dists)*4)/8+1 {
			accepted++
		}
	}
	if accepted < 2000 || accepted > 18000 {
		t.Errorf("of 20000 codes %d were accepted: they prove little", accepted)
	}
}

// randomCode is a code that is complete, or with a length changed. Some have no symbol or
// only one.
func randomCode(rng *rand.Rand, n int, broken bool) []uint8 {
	lens := make([]uint8, n)
	used := rng.Perm(n)[:min(n, 1+rng.IntN(n))]
	split := []uint8{0} // a tree of leaves
	for len(split) < len(used) {
		i := rng.IntN(len(split))
		if rng.IntN(3) == 0 {
			i = len(split) - 1 // for long ones
		}
		if split[i] == maxBits {
			continue
		}
		split[i]++
		split = append(split, split[i])
	}
	for i, l := range split {
		lens[used[i]] = l // 0 for a single one
	}
	if len(split) == 1 {
		lens[used[0]] = uint8(rng.IntN(3))
	}
	if broken {
		lens[used[rng.IntN(len(used))]] = uint8(rng.IntN(maxBits + 1))
	}
	return lens
}

// TestNoTrace decodes with one decoder what others left their tables in, and wants nothing
// to be allocated.
func TestNoTrace(t *testing.T) {
	var d Decoder
	dst := make([]byte, clusterSize)
	for _, c := range corpora(t) {
		for _, z := range deflaters() {
			s := z.compress(t, c.clusters[0])
			decode := func() {
				if _, err := d.Decode(dst, s); err != nil {
					t.Fatal(err)
				}
			}
			if n := testing.AllocsPerRun(2, decode); n != 0 {
				t.Errorf("%s, %s: %v allocations", c.name, z.name, n)
			}
			if !bytes.Equal(dst, c.clusters[0]) {
				t.Errorf("%s, %s: other bytes", c.name, z.name)
			}
			_, _ = d.Decode(dst, s[:len(s)/2])
			_, _ = d.Decode(dst[:100], s)
		}
	}
}
