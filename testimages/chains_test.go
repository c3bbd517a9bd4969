package testimages

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/testimages/interop"
)

func extract(t *testing.T, name string) *Chain {
	t.Helper()
	c, err := Extract(t.TempDir(), name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func sum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func TestChainsExtract(t *testing.T) {
	if len(Chains()) < 7 {
		t.Fatalf("frozen chains: %q", Chains())
	}
	for _, name := range Chains() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c, err := Extract(dir, name)
			if err != nil {
				t.Fatal(err)
			}
			if c.Name != name || len(c.Tools) == 0 {
				t.Errorf("chain %q made by %q", c.Name, c.Tools)
			}
			for _, f := range c.Files {
				checkFile(t, filepath.Join(dir, f.Name), f)
			}
			for _, d := range c.Disks {
				checkDisk(t, c, d)
			}
		})
	}
}

func checkFile(t *testing.T, path string, f ChainFile) {
	t.Helper()
	if got := sum(t, path); got != f.SHA256 {
		t.Errorf("%s: sha256 %s, recorded %s", f.Name, got, f.SHA256)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() != f.Size {
		t.Errorf("%s: size %d, recorded %d", f.Name, st.Size(), f.Size)
	}
}

// checkDisk sees that the index hangs together and every path leads somewhere.
func checkDisk(t *testing.T, c *Chain, d ChainDisk) {
	t.Helper()
	parent := ""
	for i, p := range d.Points {
		if p.Parent != parent || (p.Bitmap == "") != (i == 0) {
			t.Errorf("point %d: parent %q, bitmap %q", i, p.Parent, p.Bitmap)
		}
		parent = p.Checkpoint
		xml, err := os.ReadFile(p.CheckpointXML)
		if err != nil || !bytes.Contains(xml, []byte("<name>"+p.Checkpoint+"</name>")) {
			t.Errorf("point %d: checkpoint XML %s (%v)", i, p.CheckpointXML, err)
		}
		if p.Lossy && d.Source == "" {
			t.Errorf("point %d is lossy and no image holds its bitmap", i)
		}
		var info struct {
			VirtualSize int64 `json:"virtual-size"`
		}
		says := c.QEMU[filepath.Base(p.File)]
		if err := json.Unmarshal(says.Info, &info); err != nil || info.VirtualSize != p.Size {
			t.Errorf("point %d: QEMU says %d bytes, the truth has %d (%v)", i, info.VirtualSize, p.Size, err)
		}
	}
}

// Holes are part of a raw increment's meaning: what is written must come out as
// data, even where it is zeroes, and the rest must be left alone.
func TestHolesAreNotWritten(t *testing.T) {
	f := ChainFile{Size: 12, Holes: [][2]int64{{0, 2}, {4, 4}}}
	path := filepath.Join(t.TempDir(), "f")
	if err := f.write(path, []byte("abcdefghijkl")); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if want := "\x00\x00cd\x00\x00\x00\x00ijkl"; err != nil || string(got) != want {
		t.Errorf("written %q, want %q (%v)", got, want, err)
	}
}

func TestExtractUnknown(t *testing.T) {
	if _, err := Extract(t.TempDir(), "nosuch"); err == nil {
		t.Error("a chain that does not exist was extracted")
	}
}

// The sums beside the unpacked chain are those of its points.
func TestDemoSums(t *testing.T) {
	c := extract(t, "demo")
	var want strings.Builder
	for i, p := range c.Disks[0].Points {
		fmt.Fprintf(&want, "%s  point%d.raw\n", p.SHA256, i)
	}
	got, err := chainFS.ReadFile("chains/demo/SHA256")
	if err != nil || string(got) != want.String() {
		t.Errorf("SHA256 is\n%swant\n%s(%v)", got, &want, err)
	}
}

// QEMU itself, given the chain link by link, must come to the recorded truth at
// every point; and the lossy chains must really be wrong without the bitmaps.
func TestChainsHoldTheTruth(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io", "qemu-nbd", "nbdinfo")
	for _, name := range Chains() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := extract(t, name)
			for _, d := range c.Disks {
				judge(t, d)
			}
		})
	}
}
