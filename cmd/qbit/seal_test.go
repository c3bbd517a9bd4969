package main

import (
	"testing"

	"github.com/qbitkit/qbit/reconstruct/manifest"
	"github.com/qbitkit/qbit/reconstruct/plan"
)

// TestSealedPoint: a backup is found by its file, or where that was renamed by the
// name of its point, but never by a name that two have.
func TestSealedPoint(t *testing.T) {
	sealed := &manifest.Disk{Name: "vda"}
	for _, p := range [][2]string{{"full", "cp0"}, {"inc1", "cp1"}, {"copy", "cp1"}, {"inc2", "cp2"}, {"inc3", "cp3"}} {
		sealed.Put(&manifest.Point{ID: p[0], Name: p[1]})
	}
	d := &plan.Disk{Name: "vda"}
	for _, b := range [][2]string{{"full", "renamed point"}, {"elsewhere/inc1", "cp1"}, {"inc2", "cp3"}, {"moved3", "cp2"}, {"moved", "cp3"}, {"new", "cp9"}} {
		d.Backups = append(d.Backups, &plan.Backup{ID: b[0], Point: b[1]})
	}
	for i, want := range []string{
		"full", // by its file, whatever the point is called now
		"",     // two sealed points are called cp1
		"inc2", // by its file, though another was called cp3
		"",     // cp2 was inc2, which is there
		"",     // cp3 is now what two backups are called
		"",     // nothing
	} {
		got := ""
		if p := sealedPoint(sealed, d, d.Backups[i]); p != nil {
			got = p.ID
		}
		if got != want {
			t.Errorf("%s: %q, want %q", d.Backups[i].ID, got, want)
		}
	}
	d.Backups = d.Backups[4:]
	if p := sealedPoint(sealed, d, d.Backups[0]); p == nil || p.ID != "inc3" {
		t.Errorf("a file that was renamed: %+v", p)
	}
	if sealedPoint(nil, d, d.Backups[0]) != nil {
		t.Error("nothing is sealed")
	}
}

// TestSealedDisk: a disk is found by domain and name, or by its name alone where a
// domain is not known and only one has it.
func TestSealedDisk(t *testing.T) {
	m := &manifest.Manifest{Disks: []*manifest.Disk{{Domain: "a", Name: "vda"}, {Domain: "b", Name: "vda"}, {Domain: "a", Name: "vdb"}, {Name: "vdc"}}}
	for _, tt := range []struct {
		domain, name string
		want         int // of Disks; -1: none
	}{{"a", "vda", 0}, {"b", "vda", 1}, {"c", "vda", -1}, {"", "vda", -1}, {"", "vdb", 2}, {"b", "vdb", -1}, {"x", "vdc", 3}, {"", "vdd", -1}} {
		var want *manifest.Disk
		if tt.want >= 0 {
			want = m.Disks[tt.want]
		}
		if got := sealedDisk(m, &plan.Disk{Domain: tt.domain, Name: tt.name}); got != want {
			t.Errorf("%s/%s: %+v", tt.domain, tt.name, got)
		}
	}
	if sealedDisk(nil, &plan.Disk{Name: "vda"}) != nil {
		t.Error("there is no manifest")
	}
}
