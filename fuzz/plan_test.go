package fuzz

import (
	"archive/zip"
	"bytes"
	"context"
	"testing"
	"testing/fstest"

	"github.com/qbitkit/qbit/reconstruct/plan"
	"github.com/qbitkit/qbit/testimages/build"
)

// planned plans a folder of hostile files: every route ends at a whole backup and
// passes nothing twice, every backup has a verdict, and paths stay what was there.
func planned(t *testing.T, files fstest.MapFS) {
	t.Helper()
	p, err := plan.Discover(context.Background(), files, &plan.Options{MaxFiles: 1000, MaxRecord: 1 << 20})
	if err != nil {
		return
	}
	for _, d := range p.Disks {
		for _, b := range d.Backups {
			if files[b.Source.Path] == nil {
				t.Fatalf("a backup is said to lie in %q, which is not there", b.Source.Path)
			}
			d.Judge(b)
			wantSoundRoute(t, d, b)
		}
		if _, err := d.Newest(); err != nil && len(d.Backups) > 0 {
			t.Fatalf("a disk with %d backups has no newest point: %v", len(d.Backups), err)
		}
	}
}

func wantSoundRoute(t *testing.T, d *plan.Disk, b *plan.Backup) {
	t.Helper()
	route, err := d.Route(b, true)
	if err != nil {
		return
	}
	seen := map[*plan.Backup]bool{}
	for i, l := range route {
		if seen[l] {
			t.Fatalf("%s stands twice on the way to %s", l, b)
		}
		seen[l] = true
		if l.Kind.Whole() != (i == 0) {
			t.Fatalf("link %d of the way to %s is %s", i, b, l.Kind)
		}
	}
	if route[len(route)-1] != b {
		t.Fatalf("the way to %s ends at %s", b, route[len(route)-1])
	}
}

// anImage is a small sound image.
func anImage() []byte { return build.Must(specs()[0]).Bytes }

// zipOf is an archive of files that are stored as they are.
func zipOf(f *testing.F, files map[string]string) []byte {
	f.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range files {
		m, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err == nil {
			_, err = m.Write([]byte(content))
		}
		if err != nil {
			f.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	return b.Bytes()
}

// FuzzIndex plans a folder with a hostile index of OADP.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"vmName":"vm","checkpoints":[{"id":"a","type":"full","files":["x-disk.qcow2"]},{"id":"b","parent":"a","files":[{"filename":"y-disk.qcow2","diskName":"disk","size":1}]}]}`))
	f.Add([]byte(`{"checkpoints":[{"id":"a","parent":"a","files":["x-disk.qcow2","y-disk.qcow2"]}]}`))
	f.Add([]byte(`{"checkpoints":[{"id":"a","parent":"b","files":["../x-disk.qcow2"]},{"id":"b","parent":"a","files":["y-disk.qcow2"]}]}`))
	img := anImage()
	f.Fuzz(func(t *testing.T, index []byte) {
		planned(t, fstest.MapFS{
			"s/index.json":        {Data: index},
			"s/a/x-disk.qcow2":    {Data: img},
			"s/b/y-disk.qcow2":    {Data: img},
			"s/b/qmp/INC-1-x.img": {Data: index},
		})
	})
}

// FuzzZip plans a hostile archive.
func FuzzZip(f *testing.F) {
	f.Add(zipOf(f, map[string]string{"vda.full.data": "meta ", "checkpoints/virtnbdbackup.0.xml": "<domaincheckpoint/>", "../../x": "y"}))
	f.Add([]byte("PK\x03\x04"))
	f.Fuzz(func(t *testing.T, archive []byte) {
		planned(t, fstest.MapFS{"backup.zip": {Data: archive}})
	})
}

// FuzzNames plans images whose names, and whose backing files' names, are hostile.
func FuzzNames(f *testing.F) {
	f.Add("full.qcow2", "inc1.qcow2", "FULL-1700000000-a", "20260101000000.c.d.full.qcow2")
	f.Add("disk.0.0", "disk.0.1", "disk.0.01", "disk.0.4294967296")
	f.Add("vda.cp0.qcow2", "vda.inc.x.data", "vda.copy.data", "index.json")
	img := anImage()
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		files := fstest.MapFS{}
		for i, name := range []string{a, b, c, d} {
			if name == "" || len(name) > 200 || bytes.ContainsAny([]byte(name), "/\x00") || name == "." || name == ".." {
				return
			}
			files[[]string{"x/", "x/", "2026-01/", "2026.01.02.03.04.05/"}[i]+name] = &fstest.MapFile{Data: img}
		}
		planned(t, files)
	})
}
