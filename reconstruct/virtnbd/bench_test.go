package virtnbd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pierrec/lz4/v4"
	"github.com/qbitkit/qbit/testimages/streams"
)

// benchFrames frames of 32 MiB are a disk of 256 MiB, as the tool writes them.
const (
	benchFrame  = 32 << 20
	benchFrames = 8
)

var benchFile = sync.OnceValue(func() (file struct{ stream, frame []byte }) {
	content := text(5, benchFrame/8)
	for i := range content {
		if i%7 == 0 {
			content[i] ^= byte(i / 7 * 37 >> 3) // so that it is not too easy
		}
	}
	file.frame = streams.Form{}.Frame(bytes.Repeat(content, 8))
	parts := make([][]byte, benchFrames)
	for i := range parts {
		parts[i] = file.frame
	}
	w := packed(benchFrames*benchFrame, benchFrames*benchFrame)
	w.Parts(0, benchFrames*benchFrame, true, parts...)
	w.Stop()
	file.stream = w.Bytes()
	return file
})

// BenchmarkRead reads a whole disk upwards. "library" is what pierrec/lz4 alone
// takes, a goroutine for each frame.
func BenchmarkRead(b *testing.B) {
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("library/%d", workers), func(b *testing.B) { benchLibrary(b, workers) })
		for _, piece := range []int64{4 << 20, 512 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("pieces of %d KiB/%d", piece>>10, workers), func(b *testing.B) {
				file := benchFile().stream
				b.SetBytes(benchFrames * benchFrame)
				s := open(b, file, nil)
				b.ReportAllocs()
				for b.Loop() {
					ascend(b, s, piece, workers, nil)
				}
				b.ReportMetric(float64(s.cache.decoded)/float64(b.N)/(benchFrames*benchFrame), "decoded/byte")
			})
		}
	}
}

func benchLibrary(b *testing.B, workers int) {
	frame := benchFile().frame
	b.SetBytes(benchFrames * benchFrame)
	for b.Loop() {
		var next atomic.Int64
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				r, p := lz4.NewReader(nil), make([]byte, 4<<20)
				for next.Add(1) <= benchFrames {
					r.Reset(bytes.NewReader(frame))
					for n := int64(0); n < benchFrame; {
						got, err := io.ReadFull(r, p)
						if err != nil {
							b.Error(err)
							return
						}
						n += int64(got)
					}
				}
			})
		}
		wg.Wait()
	}
}

func BenchmarkVerify(b *testing.B) {
	file := benchFile().stream
	s := open(b, file, nil)
	for _, sum := range []bool{false, true} {
		b.Run(fmt.Sprintf("sum %v", sum), func(b *testing.B) {
			b.SetBytes(benchFrames * benchFrame)
			for b.Loop() {
				var err error
				if sum {
					_, err = s.VerifySum(context.Background(), nil)
				} else {
					err = s.Verify(context.Background(), nil)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	file := benchFile().stream
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		open(b, file, nil)
	}
}

func BenchmarkXXH32(b *testing.B) {
	p := make([]byte, 1<<16)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		checksum(p)
	}
}
