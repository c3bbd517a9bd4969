package testimages

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/qbitkit/qbit/testimages/interop"
)

// judge rebuilds every point with QEMU's tools, on copies.
func judge(t *testing.T, d ChainDisk) {
	t.Helper()
	dir := t.TempDir()
	wrong, lossy, below := 0, 0, ""
	for i, p := range d.Points {
		layer := filepath.Join(dir, fmt.Sprintf("%d.qcow2", i))
		copyLayer(t, p, layer)
		holes := absent(t, layer)
		if below != "" {
			interop.Run(t, "qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", below, layer)
		}
		if p.Lossy {
			lossy++
			if content(t, layer) != p.SHA256 {
				wrong++
			}
			zeroChanged(t, layer, holes, changed(t, d.Source, p.Bitmap))
		}
		if got := content(t, layer); got != p.SHA256 {
			t.Fatalf("%s at %s: QEMU reads sha256 %s, the truth is %s", d.Target, p.Checkpoint, got, p.SHA256)
		}
		interop.Run(t, "qemu-img", "check", "-q", "-f", "qcow2", layer)
		below = layer
	}
	if lossy > 0 && wrong == 0 {
		t.Errorf("%s: %d lossy links, and none needs its bitmap", d.Target, lossy)
	}
}

// copyLayer makes a qcow2 of any link; of a raw one, zeroes become absent, which
// the bitmap puts right.
func copyLayer(t *testing.T, p ChainPoint, to string) {
	t.Helper()
	if p.Format == "raw" {
		interop.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", p.File, to)
		return
	}
	b, err := os.ReadFile(p.File)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, layer string) string {
	t.Helper()
	raw := layer + ".raw"
	defer os.Remove(raw)
	interop.Run(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", layer, raw)
	return sum(t, raw)
}

type run struct{ off, end int64 }

// absent are the ranges that the layer says nothing about.
func absent(t *testing.T, layer string) []run {
	t.Helper()
	alone := fmt.Sprintf(`json:{"driver":"qcow2","backing":null,"file":{"driver":"file","filename":%q}}`, layer)
	var entries []struct {
		Start, Length int64
		Present       bool
	}
	decode(t, interop.Run(t, "qemu-img", "map", "--output=json", alone), &entries)
	var runs []run
	for _, e := range entries {
		if !e.Present {
			runs = append(runs, run{e.Start, e.Start + e.Length})
		}
	}
	return runs
}

// changed are the dirty ranges of a bitmap, as an NBD client is told them.
func changed(t *testing.T, image, bitmap string) []run {
	t.Helper()
	var entries []struct{ Offset, Length, Type int64 }
	decode(t, interop.Run(t, "nbdinfo", "--json", "--map=qemu:dirty-bitmap:"+bitmap, "--",
		"[", "qemu-nbd", "-r", "-f", "qcow2", "-B", bitmap, image, "]"), &entries)
	var runs []run
	for _, e := range entries {
		if e.Type&1 != 0 {
			runs = append(runs, run{e.Offset, e.Offset + e.Length})
		}
	}
	return runs
}

// zeroChanged writes zeroes where a range changed and the layer has nothing.
func zeroChanged(t *testing.T, layer string, holes, dirty []run) {
	t.Helper()
	args := []string{"-f", "qcow2"}
	for _, h := range holes {
		for _, d := range dirty {
			if off, end := max(h.off, d.off), min(h.end, d.end); off < end {
				args = append(args, "-c", fmt.Sprintf("write -z %d %d", off, end-off))
			}
		}
	}
	if len(args) == 2 {
		return
	}
	if out := interop.Run(t, "qemu-io", append(args, layer)...); bytes.Contains(out, []byte("failed")) {
		t.Fatalf("qemu-io: %s", out)
	}
}

func decode(t *testing.T, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
}
