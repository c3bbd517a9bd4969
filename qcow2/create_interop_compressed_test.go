package qcow2

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/qbitkit/qbit/testimages/interop"
)

// QEMU reads compressed clusters of every size, of both kinds, also where the last one
// is cut by the end of the disk; and compresses about as well.
func TestInteropCompressed(t *testing.T) {
	interop.Need(t, "qemu-img")
	for _, cluster := range []int64{512, 4096, 64 << 10, 2 << 20} {
		for _, method := range bothCompressions {
			t.Run(fmt.Sprintf("%d %s", cluster, method), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				image, truth, theirs := filepath.Join(dir, "image.qcow2"), filepath.Join(dir, "truth.raw"), filepath.Join(dir, "theirs.qcow2")
				content := mixedContent(rand.New(rand.NewPCG(12, uint64(cluster))), max(3<<20, cluster*5/2))
				if err := os.WriteFile(truth, content, 0o644); err != nil {
					t.Fatal(err)
				}
				compressFile(t, image, content, Layout{ClusterSize: cluster, Compression: method})
				expectCheckedByQEMU(t, image)
				interop.Run(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", image, truth)
				interop.Run(t, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2",
					"-o", fmt.Sprintf("cluster_size=%d,compression_type=%s", cluster, method), truth, theirs)
				if a, b := fileSize(t, image), fileSize(t, theirs); a > b*108/100+4*cluster {
					t.Errorf("the image has %d bytes, QEMU's %d", a, b)
				}
			})
		}
	}
}

// mixedContent is about n bytes of all that modelContent makes, and of text.
func mixedContent(rng *rand.Rand, n int64) []byte {
	var b []byte
	for int64(len(b)) < n {
		b = append(b, textCluster(rng, 40000+rng.IntN(90000))...)
		b = append(b, modelContent(rng, rng.Int64N(70000))...)
	}
	return b[:len(b)&^511]
}

func compressFile(t *testing.T, path string, content []byte, l Layout) {
	t.Helper()
	l.Size = int64(len(content))
	w, err := Create(createFile(t, path), l)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteCompressed(content, 0); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
