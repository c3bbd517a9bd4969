package qcow2

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/testimages/interop"
)

// A layoutImage is an image of a trial in a folder, beside what it refers to and
// the true bytes.
type layoutImage struct {
	dir, image, truth string
	trial             *layoutTrial
	model             *writerModel
}

// makeLayoutImage makes the files by random operations.
func makeLayoutImage(t *testing.T, c layoutTrial, seed uint64) *layoutImage {
	t.Helper()
	dir := t.TempDir()
	x := &layoutImage{dir: dir, image: filepath.Join(dir, "image.qcow2"), truth: filepath.Join(dir, "truth.raw"), trial: &c}
	c.layout.Size &^= 511 // QEMU knows no half sectors
	if c.layout.Backing != nil {
		ref := *c.layout.Backing
		ref.Name = strings.Repeat("./", max(0, len(ref.Name)-8)/2) + "base.raw"
		c.layout.Backing = &ref
	}
	rng := rand.New(rand.NewPCG(9, seed))
	x.model = newWriterModel(&c)
	ops := c.operations(rng, x.model, 60)
	c.addBitmaps(rng, x.model)
	c.dataName = filepath.Join(dir, "guest.data") // QEMU takes a relative one from its own folder
	f, data := createFile(t, x.image), createFile(t, c.dataName)
	if err, closeErr := c.makeLayout(f, data, x.model, ops, false); err != nil || closeErr != nil {
		t.Fatal(err, closeErr)
	}
	x.writeTruth(t, rng)
	return x
}

func createFile(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// writeTruth writes the backing file, which is shorter than the disk, and what the
// guest has to see.
func (x *layoutImage) writeTruth(t *testing.T, rng *rand.Rand) {
	t.Helper()
	truth := bytes.Clone(x.model.bytes)
	if x.model.layout.Backing != nil {
		base := writerBytes(rng, x.model.layout.Size/3*2&^511)
		for i, s := range x.model.state {
			if at := int64(i) * x.model.layout.ClusterSize; s == modelAbsent && at < int64(len(base)) {
				copy(truth[at:min(at+x.model.layout.ClusterSize, int64(len(truth)))], base[at:])
			}
		}
		if err := os.WriteFile(filepath.Join(x.dir, "base.raw"), base, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(x.truth, truth, 0o644); err != nil {
		t.Fatal(err)
	}
}

// expectInfo compares what qemu-img says of the image with the layout.
func (x *layoutImage) expectInfo(t *testing.T) {
	t.Helper()
	var got struct {
		VirtualSize int64  `json:"virtual-size"`
		ClusterSize int64  `json:"cluster-size"`
		Backing     string `json:"backing-filename"`
		Format      string `json:"backing-filename-format"`
		Specific    struct {
			Data map[string]any
		} `json:"format-specific"`
	}
	out := interop.Run(t, "qemu-img", "info", "--output=json", x.image)
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	l := &x.model.layout
	ref := Ref{}
	if l.Backing != nil {
		ref = *l.Backing
	}
	if got.VirtualSize != l.Size || got.ClusterSize != l.ClusterSize || got.Backing != ref.Name || got.Format != ref.Format {
		t.Errorf("qemu-img info: %s", out)
	}
	if a, b := fmt.Sprint(got.Specific.Data), fmt.Sprint(x.wantSpecific()); a != b {
		t.Errorf("qemu-img info: %s, want %s", a, b)
	}
}

func (x *layoutImage) wantSpecific() map[string]any {
	l := &x.model.layout
	want := map[string]any{"compat": "0.10", "compression-type": "zlib", "refcount-bits": float64(l.RefcountBits)}
	if l.Version == 2 {
		return want
	}
	want["compat"], want["compression-type"] = "1.1", l.Compression.String()
	want["lazy-refcounts"], want["corrupt"], want["extended-l2"] = l.LazyRefcounts, false, l.ExtendedL2
	if x.trial.dataFile {
		want["data-file"], want["data-file-raw"] = x.trial.dataName, x.trial.raw
	}
	var bitmaps []any
	for _, b := range x.model.bitmaps {
		flags := []any{}
		if b.auto {
			flags = append(flags, "auto")
		}
		bitmaps = append(bitmaps, map[string]any{"name": b.name, "granularity": float64(b.bits.Granularity()), "flags": flags})
	}
	if bitmaps != nil {
		want["bitmaps"] = bitmaps
	}
	return want
}

// QEMU finds nothing to say about an image of any layout, reads its bytes, and can
// go on writing into it; a raw data file is the disk by itself.
func TestInteropLayouts(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	for i, c := range layoutTrials() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x := makeLayoutImage(t, c, uint64(i))
			expectCheckedByQEMU(t, x.image)
			x.expectInfo(t)
			interop.Run(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", x.image, x.truth)
			if c.raw {
				interop.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", x.trial.dataName, x.truth)
			}
			x.writeByQEMU(t)
		})
	}
}

// writeByQEMU has QEMU write into image and truth, also over compressed clusters.
func (x *layoutImage) writeByQEMU(t *testing.T) {
	t.Helper()
	size := x.model.layout.Size
	var args []string
	for i := range int64(6) {
		args = append(args, "-c", fmt.Sprintf("write -P %d %d 5k", i+1, size/6*i&^511))
	}
	args = append(args, "-c", fmt.Sprintf("write -z %d 20k", size/3&^511))
	interop.Run(t, "qemu-io", append(args, "-f", "qcow2", x.image)...)
	interop.Run(t, "qemu-io", append(args, "-f", "raw", x.truth)...)
	interop.Run(t, "qemu-img", "check", "-f", "qcow2", x.image)
	interop.Run(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", x.image, x.truth)
}
