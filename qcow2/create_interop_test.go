package qcow2

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/qbitkit/qbit/testimages/interop"
)

// writeImageFile makes an image of the pieces, and a sparse raw file of the truth.
func writeImageFile(t *testing.T, l Layout, pieces []writerPiece, goroutines int) (image, raw string) {
	t.Helper()
	dir := t.TempDir()
	image, raw = filepath.Join(dir, "image.qcow2"), filepath.Join(dir, "disk.raw")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := Create(f, l)
	if err != nil {
		t.Fatal(err)
	}
	w.budget = max(2*w.geometry.ClusterSize(), 128<<10)
	fillWriter(t, w, pieces, goroutines)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := os.Create(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Truncate(min(l.Size, 8<<40)); err != nil { // more than a file of ext4 can be
		t.Fatal(err)
	}
	for _, p := range pieces {
		if _, err := r.WriteAt(p.data, p.off); err != nil && l.Size <= 8<<40 {
			t.Fatal(err)
		}
	}
	return image, raw
}

// expectCheckedByQEMU wants no error and no leak from qemu-img check, and the same
// end of the image.
func expectCheckedByQEMU(t *testing.T, image string) {
	t.Helper()
	out, err := exec.Command("qemu-img", "check", "-f", "qcow2", "--output=json", image).Output()
	var got map[string]any
	if jsonErr := json.Unmarshal(out, &got); err != nil || jsonErr != nil {
		t.Fatalf("qemu-img check: %v, %v\n%s", err, jsonErr, out)
	}
	for _, field := range []string{"check-errors", "corruptions", "leaks"} {
		if n, ok := got[field].(float64); ok && n != 0 {
			t.Errorf("qemu-img check: %s is %v", field, n)
		}
	}
	info, err := os.Stat(image)
	if err != nil {
		t.Fatal(err)
	}
	if end, _ := got["image-end-offset"].(float64); int64(end) != info.Size() {
		t.Errorf("qemu-img check: the image ends at %v, the file at %d", got["image-end-offset"], info.Size())
	}
}

func expectInfoOfQEMU(t *testing.T, image string, size, cluster int64) {
	t.Helper()
	var got struct {
		VirtualSize int64 `json:"virtual-size"`
		ClusterSize int64 `json:"cluster-size"`
		Format      string
		Backing     string `json:"backing-filename"`
		Specific    struct {
			Data map[string]any
		} `json:"format-specific"`
	}
	out := interop.Run(t, "qemu-img", "info", "--output=json", image)
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if got.Format != "qcow2" || got.VirtualSize != size || got.ClusterSize != cluster || got.Backing != "" {
		t.Errorf("qemu-img info: %s", out)
	}
	want := map[string]any{"compat": "1.1", "compression-type": "zlib", "refcount-bits": 16.0,
		"lazy-refcounts": false, "corrupt": false, "extended-l2": false}
	if a, b := fmt.Sprint(got.Specific.Data), fmt.Sprint(want); a != b {
		t.Errorf("qemu-img info: %s, want %s", a, b)
	}
}

// QEMU finds nothing to say about what a Writer makes, and reads the same bytes.
func TestInteropWriter(t *testing.T) {
	interop.Need(t, "qemu-img")
	for _, c := range []struct {
		size, cluster      int64
		places, goroutines int
	}{
		{0, 64 << 10, 0, 1},
		{1 << 30, 64 << 10, 0, 1},
		{512, 512, 1, 1},
		{300032, 512, 9, 4},
		{40 << 20, 512, 30, 4},
		{3<<20 + 512, 4096, 9, 4},
		{5<<20 + 512, 64 << 10, 3, 4},
		{50<<20 + 512, 2 << 20, 1, 2},
		{8 << 40, 64 << 10, 5, 4},
		{64 << 40, 64 << 10, 5, 4},
		{64 << 40, 2 << 20, 2, 1},
		{16 << 30, 512, 3, 1},
	} {
		t.Run(fmt.Sprintf("%d in %d", c.size, c.cluster), func(t *testing.T) {
			pieces := writerPieces(rand.New(rand.NewPCG(5, uint64(c.size))), c.size, c.cluster, c.places)
			image, raw := writeImageFile(t, Layout{Size: c.size, ClusterSize: c.cluster}, pieces, c.goroutines)
			expectCheckedByQEMU(t, image)
			expectInfoOfQEMU(t, image, c.size, c.cluster)
			if c.size <= 8<<40 {
				interop.Run(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", image, raw)
			}
		})
	}
}

// QEMU knows no disks of half a sector: it reads the whole sectors of one, and the
// rest is lost to it.
func TestInteropWriterOddSize(t *testing.T) {
	interop.Need(t, "qemu-img")
	for _, size := range []int64{1, 300001, 1<<20 - 1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			pieces := writerPieces(rand.New(rand.NewPCG(6, uint64(size))), size, 4096, 1)
			image, raw := writeImageFile(t, Layout{Size: size, ClusterSize: 4096}, pieces, 1)
			expectCheckedByQEMU(t, image)
			expectInfoOfQEMU(t, image, size&^511, 4096)
			if err := os.Truncate(raw, size&^511); err != nil {
				t.Fatal(err)
			}
			interop.Run(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", image, raw)
		})
	}
}
