package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/qbitkit/qbit/testimages"
	"github.com/qbitkit/qbit/testimages/chainmaker"
	"github.com/qbitkit/qbit/testimages/interop"
	"github.com/qbitkit/qbit/testimages/qemumaker"
)

// TestInteropFreshChains has libvirt make chains that nobody has seen before, and
// restores them at every point. The live disk has moved on by then.
func TestInteropFreshChains(t *testing.T) {
	interop.Need(t, chainmaker.Tools()...)
	host, err := chainmaker.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	seed := uint64(time.Now().UnixNano())
	for i := range chainCount() {
		spec := randomSpec(seed + uint64(i))
		chain, err := host.Make(t.Context(), filepath.Join(t.TempDir(), "chain"), spec)
		if err != nil {
			t.Fatalf("%+v: %v", spec, err)
		}
		for _, d := range chain.Disks {
			c := &chainOfDisk{source: d.Source, points: frozenPoints(d.Points)}
			c.restoresEveryPoint(t)
			if c.lossy() {
				c.warnsOfLossyLinks(t)
			}
		}
		if t.Failed() {
			t.Fatalf("the chain was made from %+v", spec)
		}
	}
}

func chainCount() int {
	if os.Getenv("QBIT_FULL") == "1" {
		return 12
	}
	return 2
}

// randomSpec draws what chain to make.
func randomSpec(seed uint64) chainmaker.Spec {
	rng := rand.New(rand.NewPCG(seed, 0))
	spec := chainmaker.Spec{Seed: seed, Increments: 5 + rng.IntN(3), Writes: 6 + rng.IntN(10),
		Sizes: []int64{4<<20 + 512*rng.Int64N(8<<20/512)}}
	spec.SourceExtendedL2 = rng.IntN(3) == 0
	spec.SourceCluster = []int64{64 << 10, 128 << 10, 16 << 10, 2 << 20}[rng.IntN(4)]
	for range 3 {
		spec.Targets = append(spec.Targets, randomTarget(rng))
	}
	// A shrink would also cut the bitmaps of earlier intervals.
	if rng.IntN(2) == 0 {
		spec.Resize = map[int]int64{2: spec.Sizes[0] + 512*rng.Int64N(8<<20/512)}
	}
	return spec
}

func randomTarget(rng *rand.Rand) chainmaker.Target {
	t := chainmaker.Target{ClusterSize: []int64{0, 4 << 10, 64 << 10, 128 << 10, 2 << 20}[rng.IntN(5)]}
	switch rng.IntN(7) {
	case 0:
		return chainmaker.Target{Format: "raw"}
	case 1:
		t.Compat, t.Backing = "0.10", chainmaker.BackingNone
	case 2:
		t.ClusterSize, t.ExtendedL2 = 64<<10, true
	case 3:
		t.Compression = []string{"zlib", "zstd"}[rng.IntN(2)]
	case 4:
		t.Backing = chainmaker.BackingAttached
	}
	return t
}

// frozenPoints are points in the form of those that are frozen.
func frozenPoints(points []chainmaker.Point) []testimages.ChainPoint {
	var out []testimages.ChainPoint
	for _, p := range points {
		out = append(out, testimages.ChainPoint{Checkpoint: p.Checkpoint, Parent: p.Parent, File: p.File, Format: p.Format,
			Size: p.Size, SHA256: p.SHA256, Backing: p.Backing, Bitmap: p.Bitmap, Lossy: p.Lossy})
	}
	return out
}

// sameDigest compares the content of an image with what qemu-img convert makes
// of it.
func sameDigest(t *testing.T, made qemumaker.Made, disk string, convert ...string) {
	t.Helper()
	raw := made.Path + ".raw"
	defer os.Remove(raw)
	args := append([]string{"convert", "-U", "-O", "raw"}, convert...)
	if _, err := inFolder(made.Path, "qemu-img", append(args, made.Path, raw)...); err != nil {
		t.Fatalf("qemu-img convert: %v\n%s", err, made.Options)
	}
	want, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	got, stderr, status := qbit("digest", "--digest=sha256", "--trust", disk)
	if wanted := fmt.Sprintf("sha256:%x\n", sha256.Sum256(want)); status != 0 || got != wanted {
		t.Errorf("digest of %s: status %d, %s%swant %s%s", disk, status, got, stderr, wanted, made.Options)
	}
}

// TestInteropReadOnly watches every system call of a restore: what is read is
// opened for reading alone, and nothing else is changed than the result.
func TestInteropReadOnly(t *testing.T) {
	interop.Need(t, "strace")
	links := extract(t, "plain64k")
	binary := buildQbit(t)
	trace, out := filepath.Join(t.TempDir(), "trace"), filepath.Join(t.TempDir(), "disk.raw")
	args := append([]string{"-f", "-o", trace, "-e", "trace=%file,ftruncate,fallocate", binary, "restore", "-o", out}, links...)
	if output, err := exec.Command("strace", args...).CombinedOutput(); err != nil {
		if bytes.Contains(output, []byte("ptrace")) {
			t.Skipf("strace may not trace here: %s", output)
		}
		t.Fatalf("%v: %s", err, output)
	}
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, line := range strings.Split(string(text), "\n") {
		for _, link := range links {
			if !strings.Contains(line, `"`+link+`"`) {
				continue
			}
			seen++
			if strings.Contains(line, "O_RDWR") || strings.Contains(line, "O_WRONLY") || !readsOnly(line) {
				t.Errorf("an input is not only read: %s", line)
			}
		}
	}
	if seen < len(links) {
		t.Errorf("the trace shows %d system calls on %d links", seen, len(links))
	}
}

// readsOnly reports a system call that cannot change a file that it names.
func readsOnly(line string) bool {
	for _, call := range []string{"openat(", "newfstatat(", "statx(", "execve(", "readlinkat(", "faccessat2(", "lstat(", "stat("} {
		if strings.Contains(line, call) {
			return true
		}
	}
	return false
}

// buildQbit builds the command.
func buildQbit(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "qbit")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}
