package sets

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/testimages/interop"
)

// QEMU must find in each image the backing name that the set wants it to have, no
// error, and at the newest point of each disk the truth: by the backing names where
// they lead somewhere, else with the files linked in the order of the truth.
func TestInteropSets(t *testing.T) {
	interop.Need(t, "qemu-img")
	for _, s := range All() {
		if s.Tool == "virtnbdbackup" || s.Tool == "libvirt" {
			continue // libvirt's are judged where the chains are; streams are not QEMU's
		}
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			dir := s.Lay(t)
			for _, disk := range s.Disks() {
				points := s.Points(disk)
				row := points[len(points)-1]
				judgeNames(t, s, dir, row)
				if !row.Lossy {
					judgeContent(t, s, dir, row)
				}
			}
		})
	}
}

// judgeNames looks at the header of one image through QEMU.
func judgeNames(t *testing.T, s Set, dir string, row Truth) {
	t.Helper()
	path := s.path(dir, row)
	if filepath.Ext(path) == ".raw" {
		return
	}
	var info struct {
		VirtualSize int64  `json:"virtual-size"`
		Backing     string `json:"backing-filename"`
		Format      string `json:"backing-filename-format"`
	}
	out := interop.Run(t, "qemu-img", "info", "--output=json", "-f", "qcow2", path)
	if err := json.Unmarshal(out, &info); err != nil {
		t.Fatal(err)
	}
	wants := map[Backing]string{BackingNone: "", BackingSource: "/var/", BackingDead: "nbd", BackingRelative: "",
		BackingAbsolute: dir, BackingMoved: oldHome, BackingJSON: "json:"}[s.Backing]
	if row.Parent == "" && s.Backing != BackingDead {
		wants = ""
	} else if s.Backing != BackingNone && info.Backing == "" || s.Backing == BackingRelative && filepath.IsAbs(info.Backing) {
		t.Errorf("%s names %q", row.Files[0], info.Backing)
	}
	if !strings.HasPrefix(info.Backing, wants) || info.VirtualSize != row.Size || (info.Format == "") != (info.Backing == "") {
		t.Errorf("%s: QEMU says %+v, the set wants %q and %d bytes", row.Files[0], info, wants, row.Size)
	}
}

// judgeContent converts the row's disk with QEMU.
func judgeContent(t *testing.T, s Set, dir string, row Truth) {
	t.Helper()
	top := s.path(dir, row)
	if s.Backing < BackingRelative || s.Backing == BackingMoved {
		top = relink(t, s, dir, row)
	}
	raw := filepath.Join(t.TempDir(), "raw")
	interop.Run(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", top, raw)
	b, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	if got := digest(b); got != row.SHA256 {
		t.Errorf("%s of %s: QEMU reads sha256 %s, the truth is %s", row.Point, row.Disk, got, row.SHA256)
	}
}

// relink links the files of a chain in order and returns the last.
func relink(t *testing.T, s Set, dir string, row Truth) string {
	t.Helper()
	below := ""
	for _, link := range s.chainTo(row) {
		own := s.path(dir, link)
		interop.Run(t, "qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", below, own)
		interop.Run(t, "qemu-img", "check", "-q", "-f", "qcow2", own)
		below = own
	}
	return below
}

// virtnbdrestore itself must make the truth of the sets that it can restore, from
// files whose times are in order.
func TestInteropVirtnbdrestore(t *testing.T) {
	interop.Need(t, "virtnbdrestore", "qemu-img")
	for _, name := range []string{"virtnbd-plain", "virtnbd-lz4"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := Get(name)
			dir, out := s.Lay(t), filepath.Join(t.TempDir(), "out")
			for i, row := range s.Truth {
				at := day(i)
				if err := os.Chtimes(s.path(dir, row), at, at); err != nil {
					t.Fatal(err)
				}
			}
			interop.Run(t, "virtnbdrestore", "-U", "test:///default", "-i", dir, "-o", out, "-n",
				"-L", filepath.Join(t.TempDir(), "log"), "-f", filepath.Join(t.TempDir(), "socket"))
			for _, disk := range s.Disks() {
				points := s.Points(disk)
				image := Set{}.path(out, Truth{Files: []string{"web-" + disk + ".qcow2"}})
				judgeContent(t, Set{Backing: BackingAbsolute}, out, Truth{Disk: disk, Point: points[len(points)-1].Point,
					SHA256: points[len(points)-1].SHA256, Files: []string{filepath.Base(image)}})
			}
		})
	}
}
