package reconstruct

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
)

// A real block device goes from point to point, by every way of zeroing; root alone
// can make one.
func TestDeltaDevice(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a loop device")
	}
	r := rand.New(rand.NewPCG(51, 51))
	const size = 5<<20 + 777*512
	links := []Link{{Name: "full", Disk: newFake(r, size, 4096, func(int) qcow2.Kind { return qcow2.Data })}}
	for _, name := range []string{"inc1", "inc2"} {
		links = append(links, Link{Name: name, Disk: newFake(r, size, 4096, func(i int) qcow2.Kind {
			return []qcow2.Kind{qcow2.Absent, qcow2.Zero, qcow2.Data, qcow2.Absent}[r.IntN(4)]
		})})
	}
	file := filepath.Join(t.TempDir(), "device")
	beyond := bytes.Repeat([]byte{0xaa}, 1<<20)
	if err := os.WriteFile(file, append(contentOf(model(links[:1])), beyond...), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).Output()
	if err != nil {
		t.Skipf("losetup: %v", err)
	}
	device := strings.TrimSpace(string(out))
	defer exec.Command("losetup", "--detach", device).Run()
	held := 1
	for way := range int32(len(zeroModes) + 1) {
		for _, next := range []int{3, 2, 1} {
			deviceStep(t, device, way, links[:held], links[:next])
			wantFile(t, device, slices.Concat(contentOf(model(links[:next])), beyond))
			held = next
		}
	}
}

// deviceStep brings a device from one point to another, which is seen then.
func deviceStep(t *testing.T, device string, way int32, from, to []Link) {
	t.Helper()
	d, err := NewDelta(from, to)
	if err != nil {
		t.Fatal(err)
	}
	target, err := OpenOnto(device, d.To().Size(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Abort()
	target.way.Store(way)
	disk, err := target.Disk(d.From().Size())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Prove(t.Context(), disk, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Copy(t.Context(), target, nil); err != nil {
		t.Fatal(err)
	}
	if p, err := d.Prove(t.Context(), disk, nil); len(from) != len(to) && (err != nil || p.Mixed == 0) {
		t.Errorf("afterwards it is not seen that all is done: %+v, %v", p, err)
	}
	if err := target.Commit(); err != nil {
		t.Fatal(err)
	}
}
