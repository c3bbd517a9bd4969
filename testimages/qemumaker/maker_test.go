package qemumaker

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/qbitkit/qbit/testimages/interop"
)

func TestCheckIsClean(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	seeds := uint64(30)
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			made := Make(t, t.TempDir(), seed)
			if made.Crashed {
				interop.Run(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", made.Path, filepath.Join(t.TempDir(), "raw"))
				return
			}
			out, err := exec.Command("qemu-img", "check", "-f", "qcow2", made.Path).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s\n%s", err, out, made.Options)
			}
			wantInfo(t, made)
		})
	}
}

// wantInfo compares what Made says with what qemu-img info says.
func wantInfo(t *testing.T, made Made) {
	t.Helper()
	var info struct {
		Size     int64                   `json:"virtual-size"`
		Snaps    []struct{ Name string } `json:"snapshots"`
		Specific struct {
			Data struct {
				Bitmaps []struct{ Name string }
			}
		} `json:"format-specific"`
	}
	out := interop.Run(t, "qemu-img", "info", "-f", "qcow2", "--output=json", made.Path)
	if err := json.Unmarshal(out, &info); err != nil {
		t.Fatal(err)
	}
	var snaps, bitmaps []string
	for _, s := range info.Snaps {
		snaps = append(snaps, s.Name)
	}
	for _, b := range info.Specific.Data.Bitmaps {
		bitmaps = append(bitmaps, b.Name)
	}
	slices.Sort(bitmaps)
	want := slices.Sorted(slices.Values(made.Bitmaps))
	if info.Size != made.Size || !slices.Equal(snaps, made.Snapshots) || !slices.Equal(bitmaps, want) {
		t.Errorf("qemu-img info has %d, %q, %q; want %d, %q, %q\n%s",
			info.Size, snaps, bitmaps, made.Size, made.Snapshots, want, made.Options)
	}
}

func TestFilesAreAllThereIs(t *testing.T) {
	for seed := range uint64(12) {
		dir := t.TempDir()
		made := Make(t, dir, seed)
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var have []string
		for _, e := range entries {
			have = append(have, filepath.Join(dir, e.Name()))
		}
		want := slices.Sorted(slices.Values(made.Files))
		if !slices.Equal(have, want) {
			t.Errorf("seed %d: the folder holds %q, want %q", seed, have, want)
		}
	}
}

func TestSeedsRepeat(t *testing.T) {
	dir := t.TempDir()
	a, b := Make(t, dir, 7), Make(t, dir, 7)
	if a.Options != b.Options {
		t.Errorf("seed 7 gives\n%s\nand\n%s", a.Options, b.Options)
	}
}
