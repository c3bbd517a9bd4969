package virtnbd

import (
	"bytes"
	"context"
	"fmt"
	"hash/adler32"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/streams"
)

// noiseOf is n bytes that nothing compresses.
func noiseOf(seed uint64, n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed)}).Read(p)
	return p
}

// Frames of a large file, and how far they are apart in the disk.
const (
	largeFrames = 60
	largeStep   = 8 << 20
)

// largeFrame is the content of a frame of it: they are of very different lengths.
func largeFrame(i int) []byte {
	if i == 40 {
		return noiseOf(uint64(i), 5<<20)
	}
	return noiseOf(uint64(i), 1+i*i*i*i%(400<<10))
}

// largeFile is a stream of many stretches, with those payloads that are broken, and where
// the payloads of a plain one end.
func largeFile(lz4 bool, broken func(i int) bool) (file []byte, ends []int64) {
	total := int64(0)
	for i := range largeFrames {
		total += int64(len(largeFrame(i)))
	}
	w := streams.New(streams.Meta{VirtualSize: largeFrames * largeStep, DataSize: total})
	if lz4 {
		w = packed(largeFrames*largeStep, total)
	}
	for i := range largeFrames {
		content, off := largeFrame(i), int64(i)*largeStep
		if lz4 {
			frame := streams.Form{}.Frame(content)
			if broken(i) {
				frame[len(frame)-1] ^= 1
			}
			w.Parts(off, int64(len(content)), false, frame)
		} else {
			w.Data(off, content)
			ends = append(ends, w.Len()-2)
		}
		w.Zero(off+(7<<20), 100)
	}
	w.Stop()
	if lz4 {
		w.Trailer()
	}
	return w.Bytes(), ends
}

// TestVerifyStretches: of a stream that several goroutines verify, each in stretches,
// all that is wrong is found, in order, and the sum is that of the file.
func TestVerifyStretches(t *testing.T) {
	for _, broken := range [][]int{nil, {0}, {59}, {7, 19, 20, 39, 58}} {
		file, _ := largeFile(true, func(i int) bool { return slices.Contains(broken, i) })
		s := open(t, file, nil)
		if len(s.marks) < 1 || !s.tally.Trailer {
			t.Fatalf("%d marks, %+v: a test of many wants more", len(s.marks), s.tally)
		}
		sum, err := s.VerifySum(context.Background(), nil)
		found := Findings(err)
		if sum != adler32.Checksum(file) || len(found) != len(broken) {
			t.Errorf("%v: sum %08x, found %v", broken, sum, found)
		}
		for i, e := range found {
			if e.Field != "content checksum" || i > 0 && e.Host <= found[i-1].Host {
				t.Errorf("%v: found %v", broken, found)
			}
		}
	}
}

// TestVerifyTrailerOfStretches: what the trailer tells of is compared with the frame that
// it tells of, in all stretches.
func TestVerifyTrailerOfStretches(t *testing.T) {
	file, _ := largeFile(true, func(int) bool { return false })
	begin := open(t, file, nil).end
	commas := 0
	for i := begin; i < int64(len(file)); i++ {
		if file[i] != ',' {
			continue
		}
		if commas++; commas%13 != 0 {
			continue
		}
		edited := bytes.Clone(file)
		edited[i-1] = '0' + (edited[i-1]-'0'+1)%10
		found := Findings(open(t, edited, nil).Verify(context.Background(), nil))
		if len(found) != 1 || found[0].Field != fmt.Sprintf("item %d", commas-1) {
			t.Errorf("the item before comma %d: found %v", commas, found)
		}
	}
}

// TestVerifyPlainStretches: so it is with a plain stream, and what breaks its frames after
// it was opened is found too.
func TestVerifyPlainStretches(t *testing.T) {
	file, ends := largeFile(false, nil)
	s := open(t, file, nil)
	verify(t, s, file)
	for _, i := range []int{0, 19, 40, 59} {
		edited := bytes.Clone(file)
		edited[ends[i]] ^= 1
		s := open(t, file, nil)
		s.r = bytes.NewReader(edited)
		sum, err := s.VerifySum(context.Background(), nil)
		if found := Findings(err); len(found) != 1 || found[0].Host != qcow2.HostOffset(ends[i]) || sum != adler32.Checksum(edited) {
			t.Errorf("the line end of frame %d at %d: sum %08x, found %v", i, ends[i], sum, found)
		}
	}
}

// TestVerifyProgress: it only grows, and ends with the whole file.
func TestVerifyProgress(t *testing.T) {
	for _, lz4 := range []bool{true, false} {
		file, _ := largeFile(lz4, func(int) bool { return false })
		last, calls := int64(0), 0
		err := open(t, file, nil).Verify(context.Background(), func(n int64) {
			if n < last {
				t.Errorf("%d after %d", n, last)
			}
			last, calls = n, calls+1
		})
		if err != nil || last != int64(len(file)) || calls < 3 {
			t.Errorf("%d of %d bytes in %d calls, %v", last, len(file), calls, err)
		}
	}
}
