package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qbitkit/qbit/testimages/interop"
)

// TestInteropBitmapTwins does the same random operations with qbit on one image and
// with qemu-img on its twin, with guest writes in between. Both tools must agree on
// what they refuse, on every flag, and on every bit as nbdinfo sees it.
func TestInteropBitmapTwins(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io", "qemu-nbd", "nbdinfo")
	steps := 12
	if os.Getenv("QBIT_FULL") == "1" {
		steps = 150
	}
	for i, cluster := range []string{"512", "64k", "2M"} {
		t.Run(cluster, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			tw := &twins{T: t, ours: filepath.Join(dir, "ours.qcow2"), theirs: filepath.Join(dir, "theirs.qcow2"), rng: rand.New(rand.NewPCG(7, uint64(i)))}
			interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size="+cluster, tw.ours, "4M")
			tw.same()
			for range steps {
				tw.step()
			}
		})
	}
}

type twins struct {
	*testing.T
	ours, theirs string
	rng          *rand.Rand
	log          []string
}

// same makes the twin a copy.
func (tw *twins) same() { writeFile(tw.T, tw.theirs, must(os.ReadFile(tw.ours))) }

func (tw *twins) name() string { return string(rune('a' + tw.rng.IntN(4))) }

// step does one call with a few operations, on both or, where QEMU has no such
// operation, with qbit alone; then a guest write.
func (tw *twins) step() {
	if tw.rng.IntN(3) == 0 {
		args := tw.ownOperation()
		tw.log = append(tw.log, fmt.Sprint("qbit ", args))
		if stdout, stderr, status := qbit(append([]string{"bitmap"}, args...)...); status > 1 || stdout != "" {
			tw.Fatalf("status %d, %s%s\n%q", status, stdout, stderr, tw.log)
		}
		tw.same()
	} else {
		tw.both(tw.operations())
	}
	tw.write()
	tw.compare()
}

// operations is a command line that both tools take, but for the image.
func (tw *twins) operations() (flags []string, name string) {
	for range 1 + tw.rng.IntN(3) {
		switch tw.rng.IntN(8) {
		case 0, 1, 2:
			if !slices.Contains(flags, "--add") {
				flags = append(flags, "--add", "-g", []string{"512", "4k", "64k", "1M"}[tw.rng.IntN(4)])
			}
		case 3:
			flags = append(flags, "--remove")
		case 4:
			flags = append(flags, "--clear")
		case 5:
			flags = append(flags, []string{"--enable", "--disable"}[tw.rng.IntN(2)])
		default:
			flags = append(flags, "--merge", tw.name())
		}
	}
	if len(flags) == 0 {
		flags = []string{"--enable"}
	}
	return flags, tw.name()
}

// ownOperation is one that only qbit has.
func (tw *twins) ownOperation() []string {
	off, n := tw.rng.IntN(4<<20), 1+tw.rng.IntN(200_000)
	span := fmt.Sprintf("%d-%d", off, min(off+n, 4<<20))
	op := [][]string{{"--set", span}, {"--unset", span}, {"--rename", tw.name()}, {"--copy", tw.name()}}[tw.rng.IntN(4)]
	return append(op, tw.ours, tw.name())
}

func (tw *twins) both(flags []string, name string) {
	tw.log = append(tw.log, fmt.Sprint(flags, " ", name))
	before := must(os.ReadFile(tw.ours))
	_, stderr, status := qbit(append(append([]string{"bitmap", "-f", "qcow2"}, flags...), tw.ours, name)...)
	out, err := exec.Command("qemu-img", append(append([]string{"bitmap", "-f", "qcow2"}, flags...), tw.theirs, name)...).CombinedOutput()
	if (status != 0) != (err != nil) {
		tw.Fatalf("qbit: %d %sqemu-img: %v %s\n%q", status, stderr, err, out, tw.log)
	}
	if status != 0 {
		if !bytes.Equal(before, must(os.ReadFile(tw.ours))) {
			tw.Fatalf("a refused call changed the image\n%q", tw.log)
		}
		tw.same() // what qemu-img did before it failed stays done
	}
}

// write is a write of the guest to both.
func (tw *twins) write() {
	n := 1 + tw.rng.IntN(100_000)
	command := fmt.Sprintf("write %d %d", tw.rng.IntN(4<<20-n), n)
	tw.log = append(tw.log, command)
	for _, path := range []string{tw.ours, tw.theirs} {
		interop.Run(tw.T, "qemu-io", "-f", "qcow2", "-c", command, path)
	}
}

// A twinBitmap is what QEMU says of a bitmap, with its map.
type twinBitmap struct {
	Name        string   `json:"name"`
	Granularity int64    `json:"granularity"`
	Flags       []string `json:"flags"`
	ranges      string
}

func (tw *twins) compare() {
	interop.Run(tw.T, "qemu-img", "check", "-q", tw.ours)
	ours, theirs := tw.bitmaps(tw.ours), tw.bitmaps(tw.theirs)
	if diff := cmp.Diff(theirs, ours, cmp.AllowUnexported(twinBitmap{})); diff != "" {
		tw.Fatalf("(-qemu-img +qbit)\n%s\n%q", diff, tw.log)
	}
	for _, b := range ours {
		got, stderr, status := qbit("bitmap", "--ranges", "--output=json", tw.ours, b.Name)
		if got != b.ranges {
			tw.Fatalf("status %d: %s bitmap %s (-nbdinfo +qbit)\n%s\n%q", status, stderr, b.Name, cmp.Diff(b.ranges, got), tw.log)
		}
	}
}

// bitmaps is what QEMU says of all bitmaps, in the order of their names.
func (tw *twins) bitmaps(path string) []twinBitmap {
	var info struct {
		Specific struct {
			Data struct {
				Bitmaps []twinBitmap `json:"bitmaps"`
			} `json:"data"`
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(interop.Run(tw.T, "qemu-img", "info", "--output=json", path), &info); err != nil {
		tw.Fatal(err)
	}
	list := info.Specific.Data.Bitmaps
	slices.SortFunc(list, func(a, b twinBitmap) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	for i := range list {
		list[i].ranges = string(nbdMap(tw.T, path, list[i].Name))
	}
	return list
}

// nbdMap is what nbdinfo says of a bitmap that qemu-nbd serves.
func nbdMap(t *testing.T, path, name string) []byte {
	return interop.Run(t, "nbdinfo", "--json", "--map=qemu:dirty-bitmap:"+name, "--",
		"[", "qemu-nbd", "-r", "-f", "qcow2", "-B", name, path, "]")
}
