package main

import (
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkVerify reads a set of 256 MiB in two disks, without a manifest and with
// one; beside it stands what reading the files alone costs.
func BenchmarkVerify(b *testing.B) {
	const size = 128 << 20
	dir := b.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	noise := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(noise)
	if err := os.WriteFile(raw, noise, 0o644); err != nil {
		b.Fatal(err)
	}
	folder := filepath.Join(dir, "set")
	if err := os.Mkdir(folder, 0o755); err != nil {
		b.Fatal(err)
	}
	files := []string{filepath.Join(folder, "one.qcow2"), filepath.Join(folder, "two.qcow2")}
	for _, f := range files {
		if _, stderr, status := qbit("restore", "-q", "-O", "qcow2", "raw:"+raw, "-o", f); status != exitDone {
			b.Fatal(stderr)
		}
	}
	b.Run("read", func(b *testing.B) {
		b.SetBytes(2 * size)
		for b.Loop() {
			for _, f := range files {
				readFile(b, f)
			}
		}
	})
	verify := func(flags ...string) func(b *testing.B) {
		return func(b *testing.B) {
			b.SetBytes(2 * size)
			for b.Loop() {
				if _, stderr, status := qbit(append([]string{"verify", "-q", folder}, flags...)...); status != exitDone {
					b.Fatal(stderr)
				}
			}
		}
	}
	b.Run("verify", verify())
	if _, stderr, status := qbit("seal", "-q", folder); status != exitDone {
		b.Fatal(stderr)
	}
	b.Run("verify sealed", verify())
	b.Run("verify chunks", verify("--chunks"))
}

func readFile(b *testing.B, path string) {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 128<<10) // as cat does
	for {
		_, err := f.Read(buf)
		if err == io.EOF {
			return
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
