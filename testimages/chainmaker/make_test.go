package chainmaker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/qbitkit/qbit/testimages/interop"
)

// every target that Make knows, over two disks, with a resize.
var broad = Spec{
	Seed: 9, Sizes: []int64{2<<20 + 512, 1 << 20}, Increments: 4, Writes: 4, PushTruth: true,
	Full:   Target{ClusterSize: 128 << 10},
	Resize: map[int]int64{2: 3<<20 + 1024},
	Targets: []Target{
		{},
		{Format: "raw"},
		{Compression: "zstd", Backing: BackingNone},
		{ClusterSize: 4 << 10, Compat: "0.10", Backing: BackingAttached},
	},
}

// shared is the libvirt of all tests here: a new one takes seconds to get to know QEMU.
var shared *Host

func TestMain(m *testing.M) {
	status := m.Run()
	if shared != nil {
		if err := errors.Join(shared.Close(), os.RemoveAll(shared.dir)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = max(status, 1)
		}
	}
	os.Exit(status)
}

func host(t *testing.T) *Host {
	t.Helper()
	interop.Need(t, Tools()...)
	if shared != nil {
		return shared
	}
	dir, err := os.MkdirTemp("", "libvirt")
	if err != nil {
		t.Fatal(err)
	}
	if shared, err = Start(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	return shared
}

func TestMake(t *testing.T) {
	h := host(t)
	dir := filepath.Join(t.TempDir(), "chain")
	c, err := h.Make(t.Context(), dir, broad)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range c.Disks {
		for i, p := range d.Points {
			got = append(got, strings.Join([]string{filepath.Base(p.File), p.Method, base(p.Backing)}, ","))
			if _, err := os.Stat(p.File); err != nil {
				t.Error(err)
			}
			if i > 0 && p.SHA256 == d.Points[i-1].SHA256 {
				t.Errorf("%s: nothing changed before %s", d.Target, p.Checkpoint)
			}
		}
	}
	want := []string{
		"full.qcow2,push --reuse-external,", "inc1.qcow2,push,disk.qcow2", "inc2.raw,push,",
		"inc3.qcow2,blockdev-backup,", "inc4.qcow2,push --reuse-external,",
		"vdb-full.qcow2,push --reuse-external,", "vdb-inc1.qcow2,push,vdb-disk.qcow2", "vdb-inc2.raw,push,",
		"vdb-inc3.qcow2,blockdev-backup,", "vdb-inc4.qcow2,push --reuse-external,",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("points (-want +got):\n%s", d)
	}
	if got := c.Disks[0].Points[2].Size; got != 3<<20+1024 {
		t.Errorf("after the resize the disk has %d bytes", got)
	}
	nothingLeft(t, h, dir)
}

// nothingLeft looks for domains, and for files that are no part of a chain.
func nothingLeft(t *testing.T, h *Host, dir string) {
	t.Helper()
	if out, err := h.Virsh(t.Context(), "list", "--all", "--name"); err != nil || out != "" {
		t.Errorf("domains left: %q (%v)", out, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := strings.TrimPrefix(e.Name(), "vdb-")
		known := slices.ContainsFunc([]string{"disk.qcow2", "full.", "inc", "cp"}, func(p string) bool { return strings.HasPrefix(name, p) })
		if !known || strings.Contains(name, "request") {
			t.Errorf("left over: %s", e.Name())
		}
	}
}

// What libvirt refuses comes back as an error with its words, and the Host goes on.
func TestFailureIsSaid(t *testing.T) {
	h := host(t)
	if _, err := h.Virsh(t.Context(), "dominfo", "nosuch"); err == nil || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("dominfo of no domain: %v", err)
	}
	dir := t.TempDir()
	spec := Spec{Sizes: []int64{1 << 20}, Increments: 1, Targets: []Target{{ClusterSize: 3000}}}
	if _, err := h.Make(t.Context(), dir, spec); err == nil || !strings.Contains(err.Error(), "luster size") {
		t.Errorf("cluster size 3000: %v", err)
	}
	if out, err := h.Virsh(t.Context(), "list", "--all", "--name"); err != nil || out != "" {
		t.Errorf("domains left: %q (%v)", out, err)
	}
}

// Whoever gives up waiting leaves no domain behind.
func TestCancel(t *testing.T) {
	h := host(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Make(ctx, t.TempDir(), Spec{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if out, err := h.Virsh(t.Context(), "list", "--all", "--name"); err != nil || out != "" {
		t.Errorf("domains left: %q (%v)", out, err)
	}
}
