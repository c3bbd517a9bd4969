package qcow2_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/interop"
	"github.com/qbitkit/qbit/testimages/qemumaker"
)

// qemuReport is what qemu-img check --output=json says.
type qemuReport struct {
	Status      int   `json:"-"`
	ImageEnd    int64 `json:"image-end-offset"`
	Total       int64 `json:"total-clusters"`
	Allocated   int64 `json:"allocated-clusters"`
	Fragmented  int64 `json:"fragmented-clusters"`
	Compressed  int64 `json:"compressed-clusters"`
	CheckErrors int64 `json:"check-errors"`
	Corruptions int64 `json:"corruptions"`
	Leaks       int64 `json:"leaks"`
	text        string
}

func qemuCheck(t testing.TB, path string, args ...string) qemuReport {
	t.Helper()
	cmd := exec.Command("qemu-img", append(append([]string{"check", "-f", "qcow2", "--output=json"}, args...), path)...)
	cmd.Dir = filepath.Dir(path)
	out, err := cmd.Output()
	var r qemuReport
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		r.Status, r.text = exit.ExitCode(), string(exit.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	if len(out) > 0 {
		if err := json.Unmarshal(out, &r); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return r
}

// ours is the same of our result.
func ours(res *qcow2.CheckResult) qemuReport {
	return qemuReport{ImageEnd: res.ImageEnd, Total: res.TotalClusters, Allocated: res.AllocatedClusters,
		Fragmented: res.FragmentedClusters, Compressed: res.CompressedClusters}
}

// figures are those of a report that do not depend on what is wrong.
func (r qemuReport) figures() qemuReport {
	r.Status, r.text, r.CheckErrors, r.Corruptions, r.Leaks = 0, "", 0, 0, 0
	return r
}

// writeImage writes an image to a file, with the data file that it names.
func writeImage(t testing.TB, dir string, spec *build.Spec, image, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, "image.qcow2")
	if err := os.WriteFile(path, image, 0o644); err != nil {
		t.Fatal(err)
	}
	if data != nil && spec != nil && spec.DataFile.Name != "" && filepath.IsLocal(spec.DataFile.Name) {
		if err := os.WriteFile(filepath.Join(dir, spec.DataFile.Name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// TestCheckFiguresAreQEMUs compares the numbers of sound images.
func TestCheckFiguresAreQEMUs(t *testing.T) {
	t.Parallel()
	interop.Need(t, "qemu-img")
	dir := t.TempDir()
	for seed := range seeds() / 16 {
		s := build.Random(seed)
		path := writeImage(t, dir, &s.Spec, s.Bytes, s.Data)
		want := qemuCheck(t, path)
		if want.Status == 1 {
			t.Logf("seed %d: %s", seed, want.text)
			continue
		}
		res, all := checkBytes(t, s.Bytes, s.Data, nil)
		if got := ours(res); got != want.figures() || res.Leaks != want.Leaks || res.Corruptions != want.Corruptions {
			t.Errorf("seed %d:\n%+v\nQEMU %+v\n%+v %v", seed, got, want, res, all)
		}
	}
}

// TestCheckQEMUsImages finds nothing in images that QEMU made, with its numbers.
func TestCheckQEMUsImages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for seed := range seeds() / 100 {
		made := qemumaker.Make(t, dir, seed)
		b, err := os.ReadFile(made.Path)
		if err != nil {
			t.Fatal(err)
		}
		res, all := checkBytes(t, b, nil, nil)
		want := qemuCheck(t, made.Path)
		if got := ours(res); got != want.figures() || res.Leaks != want.Leaks || res.Corruptions != want.Corruptions {
			t.Errorf("seed %d:\n%+v\nQEMU %+v\n%+v %v\n%s", seed, got, want, res, all, made.Options)
		}
	}
}

// judge compares our findings with those of qemu-img check.
func judge(t *testing.T, name string, image, data []byte, path string) (ours, qemu int) {
	t.Helper()
	res, all, err := tryCheck(image, data, nil)
	want := qemuCheck(t, path)
	if err != nil {
		if want.Status == 2 || want.Status == 3 {
			t.Errorf("%s: we cannot check: %v\nQEMU: %s", name, err, want.text)
		}
		return 1, want.Status
	}
	status := 0
	switch {
	case res.Corruptions+res.CheckErrors > 0:
		status = 2
	case res.Leaks > 0:
		status = 3
	}
	if want.Status == 2 && status != 2 || want.Status == 3 && status == 0 {
		t.Errorf("%s: status %d, QEMU %d: %s\n%v", name, status, want.Status, want.text, all)
	}
	return status, want.Status
}

// TestCheckMissesNothing breaks random images: what qemu-img check finds, we find.
func TestCheckMissesNothing(t *testing.T) {
	t.Parallel()
	interop.Need(t, "qemu-img")
	count := map[[2]int]int{}
	dir := t.TempDir()
	for seed := range seeds() / 2 {
		s := build.Random(seed)
		broken := corrupt(s.Image, seed)
		path := writeImage(t, dir, &s.Spec, broken, s.Data)
		got, want := judge(t, fmt.Sprint("seed ", seed), broken, s.Data, path)
		count[[2]int{got, want}]++
	}
	t.Logf("our status, QEMU's: %v", count)
}

// TestCheckRecipes wants every recipe reported that qemu-img check reports.
func TestCheckRecipes(t *testing.T) {
	t.Parallel()
	interop.Need(t, "qemu-img")
	dir := t.TempDir()
	count := map[[2]int]int{}
	for _, r := range build.Recipes() {
		if r.Endless {
			continue
		}
		path := filepath.Join(dir, "image.qcow2")
		if err := os.WriteFile(path, r.Image, 0o644); err != nil {
			t.Fatal(err)
		}
		got, want := judge(t, r.Name, r.Image, r.Data, path)
		count[[2]int{got, want}]++
	}
	t.Logf("our status, QEMU's: %v", count)
}

// TestCheckRefcountsAreQEMUs changes refcounts and nothing else, and wants the numbers
// of qemu-img check.
func TestCheckRefcountsAreQEMUs(t *testing.T) {
	t.Parallel()
	interop.Need(t, "qemu-img")
	dir := t.TempDir()
	for seed := range seeds() / 16 {
		s := build.Random(seed)
		if s.Spec.DataFile != nil {
			continue // QEMU does not find it
		}
		rng := rand.New(rand.NewPCG(seed, 5))
		broken := slices.Clone(s.Bytes)
		for range 1 + rng.IntN(4) {
			p := s.At("refcount_block[0]")
			// Where the clusters are that the file has.
			n := min(p.Len, int64(len(s.Bytes))/int64(s.ClusterSize)*int64(s.Spec.RefcountBits)/8+1)
			broken[p.Off+rng.Int64N(n)] = byte(rng.Uint32N(4))
		}
		path := writeImage(t, dir, &s.Spec, broken, s.Data)
		want := qemuCheck(t, path)
		if want.Status == 1 {
			continue
		}
		res, all := checkBytes(t, broken, s.Data, nil)
		overlaps := int64(0) // QEMU does not look for them
		for _, f := range all {
			if f.Kind == qcow2.FindOverlap {
				overlaps++
			}
		}
		if res.Corruptions-overlaps != want.Corruptions || res.Leaks != want.Leaks || res.ImageEnd != want.ImageEnd {
			t.Errorf("seed %d: %+v\nQEMU %+v\n%v", seed, res, want, all)
		}
	}
}

// BenchmarkCheck checks large images, beside qemu-img check.
func BenchmarkCheck(b *testing.B) {
	interop.Need(b, "qemu-img")
	for name, args := range map[string][]string{
		"million-64k": {"-o", "preallocation=metadata", "64G"},
		"million-512": {"-o", "preallocation=metadata,cluster_size=512", "512M"},
		"empty-64T":   {"64T"},
	} {
		path := filepath.Join(b.TempDir(), name)
		size := args[len(args)-1]
		interop.Run(b, "qemu-img", append(append([]string{"create", "-q", "-f", "qcow2"}, args[:len(args)-1]...), path, size)...)
		b.Run(name+"/qbit", func(b *testing.B) {
			for b.Loop() {
				checkFile(b, path)
			}
		})
		b.Run(name+"/qemu-img", func(b *testing.B) {
			for b.Loop() {
				interop.Run(b, "qemu-img", "check", "-q", "-f", "qcow2", path)
			}
		})
	}
}

func checkFile(b *testing.B, path string) {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		b.Fatal(err)
	}
	res, err := qcow2.Check(context.Background(), f, info.Size(), nil, nil, func(qcow2.Finding) error { return nil })
	if err != nil || !res.Clean() {
		b.Fatalf("%+v, %v", res, err)
	}
}
