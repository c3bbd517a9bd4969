package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/interop"
)

// inspect gives the report of one image.
func inspect(t *testing.T, args ...string) (*inspectReport, int) {
	t.Helper()
	stdout, stderr, status := qbit(append([]string{"inspect", "--policy", "--output=json"}, args...)...)
	var r inspectReport
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || stderr != "" {
		t.Fatalf("%q: %v: %s%s", args, err, stdout, stderr)
	}
	return &r, status
}

// cves are all CVE numbers of a report.
func (r *inspectReport) cves() []string {
	var all []string
	for _, f := range r.Findings {
		all = unite(all, f.CVE)
	}
	return all
}

// What Open refuses is refused, and sound images are not.
func TestInspectRecipes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	for _, recipe := range build.Recipes() {
		writeFile(t, path, recipe.Image)
		r, status := inspect(t, path)
		switch {
		case status != 0 && status != exitBad, (status == 0) != (r.Verdict == verdictAccept):
			t.Errorf("%s: status %d, verdict %s", recipe.Name, status, r.Verdict)
		case recipe.When == build.WhenOpen && status == 0, recipe.When == build.WhenSnapshots && status == 0:
			t.Errorf("%s is accepted: %+v", recipe.Name, r.Findings)
		}
	}
}

func TestInspectSound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	harmless := []string{"snapshots", "bitmaps", "unknown-extension", "unknown-feature-bit", "dirty-bit"}
	asked := []string{"vm-state", "backing-file", "no-backing-format", "data-file", "no-name", "encrypted", "aes-encryption", "corrupt-bit"}
	accepted := 0
	for seed := range uint64(300) {
		img := build.Random(seed)
		writeFile(t, path, img.Bytes)
		r, status := inspect(t, path)
		for _, f := range r.Findings {
			// Bits of a bitmap that has an odd type or flag have no meaning.
			bitmap := f.Refuse && (f.Rule == "broken" || f.Rule == "unsupported-feature") && strings.Contains(f.Message, "bitmap")
			if !bitmap && !slices.Contains(harmless, f.Rule) && !slices.Contains(asked, f.Rule) {
				t.Errorf("seed %d: %+v", seed, f)
			}
		}
		if status == 0 {
			accepted++
		}
	}
	if accepted < 50 {
		t.Errorf("only %d of 300 sound images are accepted", accepted)
	}
}

// A cveImage is an image as it was used, or could have been, and the CVE number that
// the report must have.
type cveImage struct {
	cve   string
	image []byte
}

func cveImages() []cveImage {
	base := build.Must(build.Spec{ClusterBits: 12, Size: 16 << 12, Snapshots: []build.Snapshot{{ID: "1", Name: "one"}}})
	named := func(backing, format string) []byte {
		return build.Must(build.Spec{ClusterBits: 12, Size: 4096, Backing: backing, BackingFormat: format}).Bytes
	}
	data := func(name string) []byte {
		return build.Must(build.Spec{ClusterBits: 12, Size: 4096, DataFile: &build.DataFile{Name: name}}).Bytes
	}
	old := func(magic string, patches map[int][]byte) []byte {
		b := append([]byte(magic), make([]byte, 1024-len(magic))...)
		for at, p := range patches {
			copy(b[at:], p)
		}
		return b
	}
	qcow1 := func(l2Bits byte, size uint64) []byte {
		return old("QFI\xfb\x00\x00\x00\x01", map[int][]byte{24: be(size), 32: {12, l2Bits}})
	}
	return []cveImage{
		{"CVE-2024-32498", data("/etc/passwd")},
		{"CVE-2024-4467", data(`json:{"driver":"file","filename":"/etc/passwd"}`)},
		{"CVE-2024-4467", named(`json:{"driver":"nbd"}`, "raw")},
		{"CVE-2026-27211", named("/etc/shadow", "raw")},
		{"CVE-2014-0142", old("WithoutFreeSpace", map[int][]byte{16: {2}})},
		{"CVE-2014-0142", old("Bochs Virtual HD Image", nil)},
		{"CVE-2014-0143", base.Patch("snapshot[0].l1_size", 1<<28)},
		{"CVE-2014-0144", base.Patch("header.header_length", 1<<30)},
		{"CVE-2014-0144", base.Patch("header.refcount_table_clusters", 1<<31)},
		{"CVE-2014-0144", base.Patch("header.l1_size", 1<<31)},
		{"CVE-2014-0145", base.Patch("snapshot[0].l1_size", 1<<30)},
		{"CVE-2014-0146", base.Patch("header.nb_snapshots", 1<<31)},
		{"CVE-2014-0146", base.Patch("header.snapshots_offset", 1<<60)},
		{"CVE-2014-0147", base.Patch("header.refcount_table_offset", 1<<50)},
		{"CVE-2014-0222", qcow1(60, 4096)},
		{"CVE-2014-0223", qcow1(9, 1<<62)},
	}
}

func TestInspectCVEs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	for i, c := range cveImages() {
		writeFile(t, path, c.image)
		r, status := inspect(t, "--allow-backing", path)
		if status != exitBad || r.Verdict != verdictRefuse || !slices.Contains(r.cves(), c.cve) {
			t.Errorf("%d: %s: status %d, %+v", i, c.cve, status, r.Findings)
		}
	}
}

// TestInspectGrows has small files that say to hold much data.
func TestInspectGrows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	shared := build.Spec{ClusterBits: 12, Size: 512 << 12, Clusters: map[uint64]build.Cluster{}}
	packed := build.Spec{ClusterBits: 16, Size: 4096 << 16, Clusters: map[uint64]build.Cluster{}}
	for i := range uint64(4096) {
		packed.Clusters[i] = build.Cluster{Form: build.Packed, Share: "one", Content: make([]byte, 1<<16)}
		if i < 512 {
			shared.Clusters[i] = build.Cluster{Form: build.Normal, Share: "one"}
		}
	}
	for rule, spec := range map[string]build.Spec{"shared-data": shared, "ratio": packed} {
		writeImage(t, path, spec)
		args := []string{path}
		if rule == "ratio" {
			args = []string{"--max-ratio=100", path}
		}
		r, status := inspect(t, args...)
		if status != exitBad || !slices.ContainsFunc(r.Findings, func(f inspectFinding) bool { return f.Rule == rule && f.Refuse }) {
			t.Errorf("%s: status %d, %+v", rule, status, r)
		}
		if r.StoredSize == nil || *r.StoredSize != int64(spec.Size) {
			t.Errorf("%s: stored size %v, want %d", rule, r.StoredSize, spec.Size)
		}
	}
	if r, status := inspect(t, "--max-ratio=100000", path); status != 0 && r.Findings[0].Rule != "shared-data" {
		t.Errorf("with a higher ratio: %+v", r)
	}
}

// TestInspectOpensNothing names files that are there, and looks at what is opened.
func TestInspectOpensNothing(t *testing.T) {
	interop.Need(t, "strace")
	binary := buildQbit(t)
	dir := t.TempDir()
	for _, name := range []string{"secret-base", "secret-data"} {
		writeFile(t, filepath.Join(dir, name), []byte("secret"))
	}
	writeImage(t, dir+"/backed", build.Spec{ClusterBits: 12, Size: 4096, Backing: filepath.Join(dir, "secret-base")})
	writeImage(t, dir+"/data", build.Spec{ClusterBits: 12, Size: 4096, DataFile: &build.DataFile{Name: "secret-data"}})
	trace := filepath.Join(dir, "trace")
	for _, image := range []string{"backed", "data"} {
		args := []string{"-f", "-o", trace, "-e", "trace=file", binary, "inspect", "--policy", "--allow-backing", filepath.Join(dir, image)}
		cmd := exec.Command("strace", args...)
		output, _ := cmd.CombinedOutput()
		text, err := os.ReadFile(trace)
		if err != nil || !strings.Contains(string(text), "/"+image) {
			t.Skipf("strace may not trace here: %s", output)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "secret-") && !strings.Contains(line, "exec") {
				t.Errorf("%s: %s", image, line)
			}
		}
		if !strings.Contains(string(output), "verdict: refuse") {
			t.Errorf("%s: %s", image, output)
		}
	}
}
