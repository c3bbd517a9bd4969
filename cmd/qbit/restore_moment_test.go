package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/qbitkit/qbit/reconstruct/plan"
	"github.com/qbitkit/qbit/testimages/sets"
)

// Disks are put together where their points are of one moment; what differs is
// refused, and what nobody knows is said.
func TestMoments(t *testing.T) {
	day := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	disk := func(name string, tool plan.Tool, points ...string) *plan.Disk {
		d := &plan.Disk{Domain: "web", Name: name, Tool: tool}
		for i, p := range points {
			d.Backups = append(d.Backups, &plan.Backup{Point: p, Time: day.AddDate(0, 0, i)})
		}
		return d
	}
	at := func(d *plan.Disk, i int) diskRoute { return diskRoute{disk: d, route: d.Backups[i : i+1]} }
	vda, vdb := disk("vda", plan.ToolLibvirt, "a", "b", "c"), disk("vdb", plan.ToolLibvirt, "a", "b")
	other := disk("vdc", plan.ToolVirtnbd, "x", "y", "z")
	timeless := disk("vdd", plan.ToolUnknown, "p")
	timeless.Backups[0].Time = time.Time{}
	late := disk("vde", plan.ToolLibvirt, "q", "r", "a")
	foreign := disk("vda", plan.ToolLibvirt, "a", "b")
	foreign.Domain = "mail"
	for _, row := range []struct {
		name         string
		at           string
		a, b         diskRoute
		refused, say string
	}{
		{"one point", "", at(vda, 1), at(vdb, 1), "", ""},
		{"the newest of one is not there of the other", "", at(vda, 2), at(vdb, 1), "the newest point of web/vda is c, that of web/vdb is b: they are of different moments", ""},
		{"both have both points", "", at(vda, 0), at(vdb, 1), "they are of different moments", ""},
		{"as of a time", "2026-03-03", at(vda, 2), at(vdb, 1), "as of 2026-03-03 the point of web/vda is c", ""},
		{"names of their own, one time", "", at(vda, 1), at(other, 1), "", ""},
		{"names of their own, two times", "", at(vda, 1), at(other, 2), "", "nothing says that web/vda at point b (of 2026-03-02 10:00:00) and web/vdc at point z (of 2026-03-03 10:00:00)"},
		{"no time", "", at(vda, 1), at(timeless, 0), "", "web/vdd at point p are of one moment"},
		{"one name, days apart", "", at(vda, 0), at(late, 2), "", "nothing says that web/vda at point a"},
		{"another domain", "", at(vda, 2), at(foreign, 0), "", ""},
	} {
		for _, strict := range []bool{false, true} {
			var said bytes.Buffer
			r := &restoreCommand{strict: strict}
			r.from.at = row.at
			err := r.judgeMoments(&console{err: &said}, []diskRoute{row.a, row.b})
			want := row.refused
			if strict && want == "" {
				want = row.say
			}
			if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s, strict %v: got %v, want %q", row.name, strict, err, want)
			}
			if !strict && (said.Len() > 0 != (row.say != "") || !strings.Contains(said.String(), row.say)) {
				t.Errorf("%s: said %q, want %q", row.name, said.String(), row.say)
			}
		}
	}
}

// A disk that was not in the newest backup is not put beside those that were: not as
// the newest point, nor as of a time.
func TestMomentsOfSets(t *testing.T) {
	l := laySet(t, sets.Get("libvirt-twodisks"))
	if err := os.Remove(filepath.Join(l.path, "vdb-inc3.qcow2")); err != nil {
		t.Fatal(err)
	}
	for _, flags := range [][]string{nil, {"--at", "2099-01-01"}} {
		out := filepath.Join(t.TempDir(), "out")
		_, stderr, status := qbit(append([]string{"restore", l.path, "-o", out + "/"}, flags...)...)
		if status != exitBad || !strings.Contains(stderr, "they are of different moments") {
			t.Errorf("%q: status %d: %s", flags, status, stderr)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%q: something was restored", flags)
		}
	}
	raw := laySet(t, sets.Get("virtnbd-rawdisk")) // vdb is copied once, at a time of its own
	_, stderr, status := qbit("restore", raw.path, "-o", t.TempDir()+"/")
	if status != exitDone || !strings.Contains(stderr, "nothing says that ") {
		t.Errorf("status %d: %s", status, stderr)
	}
}
