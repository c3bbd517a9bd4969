package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/plan"
	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/sets"
)

// sealedDemo is a sealed set of six points of one disk: full.qcow2, inc1.qcow2, ….
func sealedDemo(t *testing.T) *laidSet {
	t.Helper()
	l := laySet(t, sets.Get("libvirt-demo"))
	l.seal(t)
	return l
}

// damage changes a byte of the first data cluster of an image.
func damage(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	img, err := qcow2.Open(bytes.NewReader(b), int64(len(b)), nil)
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range img.Extents(0, img.Size()) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == qcow2.Data {
			b[e.Host] ^= 1
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("%s has no data", path)
}

func swap(t *testing.T, a, b string) {
	t.Helper()
	for _, step := range [][2]string{{a, a + ".tmp"}, {b, a}, {a + ".tmp", b}} {
		if err := os.Rename(step[0], step[1]); err != nil {
			t.Fatal(err)
		}
	}
}

// TestVerifyNames: what differs is named: the chunk, its bytes, the link that they
// come from, and the link at which it began.
func TestVerifyNames(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, dir string)
		point  string // the file of the first point that is lost
		want   string // the reason, as a regular expression
		after  string // and of the point after it
	}{
		{"rot in the full", func(t *testing.T, dir string) { damage(t, filepath.Join(dir, "full.qcow2")) }, "full.qcow2",
			`^1 chunks are not what was sealed; the first that differs only from full.qcow2 on: guest bytes \d+ to \d+ \(chunk \d+\) are not what was sealed: xxh64 is [0-9a-f]{16} and should be [0-9a-f]{16}; what is there comes from `,
			`^1 chunks are not what was sealed, as in the point before, cp0$`},
		{"rot in an increment", func(t *testing.T, dir string) { damage(t, filepath.Join(dir, "inc2.qcow2")) }, "inc2.qcow2",
			`^1 chunks are not what was sealed, and below inc2.qcow2 they were; the first: guest bytes .* link "inc2.qcow2" \(bytes \d+ to \d+\)`, ""},
		{"two swapped", func(t *testing.T, dir string) {
			swap(t, filepath.Join(dir, "inc1.qcow2"), filepath.Join(dir, "inc2.qcow2"))
		}, "inc1.qcow2", `below inc1.qcow2 they were; the first: guest bytes .* link "inc1.qcow2"`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := sealedDemo(t)
			tt.change(t, l.path)
			r, status := l.verify(t)
			if status != exitBad {
				t.Errorf("status %d", status)
			}
			for i, p := range r.Points {
				if p.ID != tt.point {
					if p.Verdict != plan.Restorable {
						t.Errorf("%s: %s: %v", p.ID, p.Verdict, p.Why)
					}
					continue
				}
				if p.Verdict != plan.Lost || !regexp.MustCompile(tt.want).MatchString(p.Why[0]) {
					t.Errorf("%s: %s: %q", p.ID, p.Verdict, p.Why)
				}
				if next := r.Points[i+1]; tt.after != "" && !regexp.MustCompile(tt.after).MatchString(next.Why[0]) {
					t.Errorf("%s: %q", next.ID, next.Why)
				}
				break
			}
		})
	}
}

// TestExpectNames: what restore asks names the same.
func TestExpectNames(t *testing.T) {
	l := sealedDemo(t)
	if err := l.copyPoint(t, "inc3.qcow2"); err != nil {
		t.Fatal(err)
	}
	swap(t, filepath.Join(l.path, "inc1.qcow2"), filepath.Join(l.path, "inc2.qcow2"))
	err := l.copyPoint(t, "inc3.qcow2")
	if statusOf(err) != exitBad || !strings.Contains(err.Error(), "below it is as it was sealed, and differs from link 2 on, inc1.qcow2") {
		t.Errorf("two swapped: %v", err)
	}
	swap(t, filepath.Join(l.path, "inc1.qcow2"), filepath.Join(l.path, "inc2.qcow2"))
	damage(t, filepath.Join(l.path, "full.qcow2"))
	err = l.copyPoint(t, "full.qcow2")
	if statusOf(err) != exitBad || !strings.Contains(err.Error(), "it differs from the first link on, full.qcow2") {
		t.Errorf("rot in the full: %v", err)
	}
}

// copyPoint reads a point as restore does.
func (l *laidSet) copyPoint(t *testing.T, id string) error {
	t.Helper()
	ctx, c := context.Background(), &console{err: new(bytes.Buffer), errWidth: func() int { return 0 }, now: time.Now}
	s, err := (&setFlags{}).openSet(ctx, []string{l.path}, qcow2.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	m, err := s.loadManifest("")
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.Disks[0].At(id)
	if err != nil {
		t.Fatal(err)
	}
	route, err := s.Disks[0].Route(found[0], true)
	if err != nil {
		t.Fatal(err)
	}
	e, err := expect(m, s.Disks[0], route)
	if err != nil {
		t.Fatal(err)
	}
	o, err := (&sourceFlags{}).newOpener(c)
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	ch, err := o.openRoute(s, route)
	if err != nil {
		t.Fatal(err)
	}
	_, err = reconstruct.Copy(ctx, nil, ch.disk, &reconstruct.CopyOptions{Expect: e.chunk()})
	return e.explain(ctx, ch, err)
}

// TestVerifyWithout: without a manifest damage is found where something in the files
// shows it.
func TestVerifyWithout(t *testing.T) {
	for _, tt := range []struct{ set, mutation, want string }{
		{"virtnbd-chksum", "CorruptFrame", "its adler32 is"},
		{"virtnbd-lz4", "CorruptFrame", ""},
		{"virtnbd-zip-lz4", "CorruptFrame", ""},
		{"virtnbd-lz4", "CorruptHeader", ""},
		{"virtnbd-plain", "CutStream", ""},
		{"virtnbd-plain", "CutAtFrame", ""},
		{"libvirt-demo", "CorruptTable", ""},
		{"libvirt-demo", "CutImage", ""},
	} {
		t.Run(tt.set+" "+tt.mutation, func(t *testing.T) {
			l := laySet(t, sets.Get(tt.set))
			e, err := sets.Mutate(tt.mutation).Apply(l.dir(), l.Set)
			if err != nil {
				t.Fatal(err)
			}
			r, status := l.verify(t)
			if status != exitBad {
				t.Errorf("status %d", status)
			}
			for _, f := range r.Files {
				if strings.HasSuffix(f.File, e.Files[0]) && (f.State != fileDamaged || !strings.Contains(f.Findings[0].Text, tt.want)) {
					t.Errorf("%s: %s %v", f.File, f.State, f.Findings)
				}
			}
			if p := r.point(e.Files[0]); p == nil || p.Verdict != plan.Lost {
				t.Errorf("%+v", p)
			}
		})
	}
}

// TestVerifyDecodes: a compressed cluster that cannot be decoded is found, though no
// table is wrong, and so is a second one behind it.
func TestVerifyDecodes(t *testing.T) {
	dir := t.TempDir()
	img := build.Must(build.Spec{Size: 16 << 20, ClusterBits: 16, Clusters: map[uint64]build.Cluster{
		1: {Form: build.Packed}, 2: {Form: build.Packed}, 100: {Form: build.Packed}}})
	path := filepath.Join(dir, "full.qcow2")
	for _, tt := range []struct {
		rot  []uint64
		want int
	}{{nil, 0}, {[]uint64{2}, 1}, {[]uint64{1, 100}, 2}} {
		b := bytes.Clone(img.Bytes)
		for _, n := range tt.rot {
			copy(b[img.At("packed[%d]", n).Off:], "\xff\xff\xff\xff\xff\xff\xff\xff")
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		l := &laidSet{path: dir}
		r, status := l.verify(t)
		if len(r.Files) != 1 || len(r.Files[0].Findings) != tt.want || (status == exitBad) != (tt.want > 0) {
			t.Errorf("%v: status %d, %+v", tt.rot, status, r.Files[0])
		}
	}
}

// TestVerifyHarmless: refcounts that are wrong make a doubt; the disk is all there.
func TestVerifyHarmless(t *testing.T) {
	dir := t.TempDir()
	img := build.Must(build.Spec{Size: 1 << 20, ClusterBits: 16, Clusters: map[uint64]build.Cluster{1: {Form: build.Normal}}})
	img.SetRefcount(img.Bytes, uint64(img.At("data[1]").Off)>>16, 0)
	if err := os.WriteFile(filepath.Join(dir, "full.qcow2"), img.Bytes, 0o644); err != nil {
		t.Fatal(err)
	}
	r, status := (&laidSet{path: dir}).verify(t)
	if status != exitDone || r.Files[0].State != fileDoubt || r.Points[0].Verdict != plan.Doubtful || !strings.Contains(r.Points[0].Why[0], "refcount") {
		t.Errorf("status %d, %+v, %+v", status, r.Files[0], r.Points[0])
	}
}

// TestSealedSize: a disk that lost its end chunk by chunk is not what was sealed,
// though every chunk that is left is.
func TestSealedSize(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "full.raw")
	if err := os.WriteFile(path, bytes.Repeat([]byte{7}, 8<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	l := &laidSet{path: dir}
	l.seal(t)
	if err := os.Truncate(path, 4<<20); err != nil {
		t.Fatal(err)
	}
	r, status := l.verify(t)
	if p := r.Points[0]; status != exitBad || p.Verdict != plan.Lost || p.Sealed != sealedOther {
		t.Errorf("status %d, %+v", status, p)
	}
	out := filepath.Join(t.TempDir(), "disk.raw")
	if _, stderr, status := qbit("restore", dir, "-o", out); status != exitBad || !strings.Contains(stderr, "the size that it was sealed with") {
		t.Errorf("restore: status %d, %s", status, stderr)
	}
}
