package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// compressedData is how much data an image of compressed clusters holds.
const compressedData = 1434 * mib

// runCompressed times restoring images whose clusters are compressed, each made with
// qemu-img of the same disk.
func runCompressed(s settings) error {
	return inFolder(s, func(s settings) error {
		dir := s.dir
		disk := filepath.Join(dir, "disk.raw")
		if err := makeDisk(s, disk, compressedData*s.scale/100); err != nil {
			return err
		}
		for _, method := range []string{"zlib", "zstd"} {
			if err := compress(disk, filepath.Join(dir, method+".qcow2"), method); err != nil {
				return err
			}
		}
		if err := os.Remove(disk); err != nil {
			return err
		}
		for _, c := range []struct{ title, image string }{
			{"1.4 GiB of data in deflate clusters", "zlib.qcow2"}, {"1.4 GiB of data in zstd clusters", "zstd.qcow2"},
		} {
			if err := restoreCompressed(s, c.title, dir, filepath.Join(dir, c.image)); err != nil {
				return err
			}
		}
		return nil
	})
}

// compress makes an image of a raw disk.
func compress(disk, image, method string) error {
	return tool("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type="+method, disk, image)
}

func restoreCompressed(s settings, title, dir, image string) error {
	c := chainCase{format: "raw"}
	r := race{title: title, runs: c.contestants(s, dir, []string{image}), writes: s.part(compressedData, 0), same: sameFile, wants: []want{timesAsFast(1.3, "qemu-img")}}
	return r.run(s)
}

// makeDisk writes a disk as many are: text, a program (that which is measured), records,
// and what cannot be compressed, in runs of up to 1 MiB.
func makeDisk(s settings, path string, size int64) error {
	program, err := os.ReadFile(s.qbit)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, mib)
	m := newMaker(program)
	for left := size; left > 0; {
		n, err := w.Write(m.run(min(left, 4096*(1+m.rng.Int64N(256)))))
		if err != nil {
			f.Close()
			return err
		}
		left -= int64(n)
	}
	if err := w.Flush(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// A maker makes what a disk holds.
type maker struct {
	rng     *rand.Rand
	program []byte
	words   [][]byte
}

func newMaker(program []byte) *maker {
	m := &maker{rng: rand.New(rand.NewPCG(3, 4)), program: program}
	for range 4000 {
		word := make([]byte, 2+m.rng.IntN(9))
		for i := range word {
			word[i] = "etaoinshrdlucmfwypvbgkjqxz"[int(26*m.rng.Float64()*m.rng.Float64())]
		}
		m.words = append(m.words, append(word, ' '))
	}
	return m
}

// run makes n bytes of one kind.
func (m *maker) run(n int64) []byte {
	var b bytes.Buffer
	b.Grow(int(n) + 100)
	switch kind := m.rng.IntN(10); {
	case kind < 4:
		m.text(&b, n)
	case kind < 8:
		at := m.rng.IntN(len(m.program))
		for int64(b.Len()) < n {
			b.Write(m.program[at:])
			at = 0
		}
	case kind < 9:
		for i := m.rng.IntN(1 << 20); int64(b.Len()) < n; i++ {
			fmt.Fprintf(&b, "%08d\x00\x00\x00\x00%x\x00\x01%s\xff", i, m.rng.Uint32(), m.words[m.rng.IntN(100)])
		}
	default:
		io.CopyN(&b, chaos{m.rng}, n)
	}
	return b.Bytes()[:n]
}

// text appends words, some of them often and most seldom.
func (m *maker) text(b *bytes.Buffer, n int64) {
	for int64(b.Len()) < n {
		f := m.rng.Float64()
		b.Write(m.words[int(float64(len(m.words))*f*f*f)])
		if m.rng.IntN(12) == 0 {
			fmt.Fprintf(b, "%d.\n", m.rng.IntN(100000))
		}
	}
}

// chaos is what cannot be compressed.
type chaos struct{ rng *rand.Rand }

func (c chaos) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(c.rng.Uint32())
	}
	return len(p), nil
}
