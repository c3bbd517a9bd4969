package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qbitkit/qbit/reconstruct/manifest"
	"github.com/qbitkit/qbit/reconstruct/plan"
	"github.com/qbitkit/qbit/testimages/sets"
)

// seal seals the set.
func (l *laidSet) seal(t *testing.T, flags ...string) sealReport {
	t.Helper()
	stdout, stderr, status := qbit(append(append([]string{"seal", "--assume", "--output=json", l.path}, l.flag...), flags...)...)
	var r sealReport
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || status != exitDone && status != exitBad {
		t.Fatalf("seal: status %d, %v: %s", status, err, stderr)
	}
	return r
}

// verify verifies the set.
func (l *laidSet) verify(t *testing.T, flags ...string) (r verifyReport, status int) {
	t.Helper()
	stdout, stderr, status := qbit(append(append([]string{"verify", "--output=json", l.path}, l.flag...), flags...)...)
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("verify: status %d, %v: %s", status, err, stderr)
	}
	return r, status
}

func (r *verifyReport) point(id string) *pointReport {
	for _, p := range r.Points {
		if p.ID == id || strings.HasSuffix(p.ID, "!"+id) {
			return p
		}
	}
	return nil
}

// dir is the folder of the set, where the manifest lies.
func (l *laidSet) dir() string {
	if l.Zip {
		return filepath.Dir(l.path)
	}
	return l.path
}

// TestSealedSets seals every set and verifies it: what can be restored is as it was
// sealed, by its files and chunk by chunk, and the roots are the digests of what is
// restored.
func TestSealedSets(t *testing.T) {
	for i, s := range sets.All() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			l := laySet(t, s)
			before := folderHashes(t, l.dir())
			sealed := l.seal(t, "--sha256")
			l.wantAsSealed(t, sealed, nil)
			l.wantAsSealed(t, sealed, [][]string{{"--chunks", "--second-reader", "-m3"}, {"--sha256"}}[i%2])
			for _, truth := range s.Truth {
				l.wantTruth(t, sealed, truth)
			}
			if diff := cmp.Diff(before, folderHashes(t, l.dir())); diff != "" {
				t.Error(diff)
			}
			for _, p := range l.seal(t, "--recheck").Points {
				if p.State != stateChecked && p.State != stateNotSealed {
					t.Errorf("%s, sealed again: %s %v", p.ID, p.State, p.Why)
				}
			}
		})
	}
}

// folderHashes are the hashes of all files but the manifest.
func folderHashes(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	if err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && d.Name() != manifest.FileName {
			all[path] = fileSHA256(t, path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func (l *laidSet) wantAsSealed(t *testing.T, sealed sealReport, flags []string) {
	t.Helper()
	r, status := l.verify(t, flags...)
	lost := false
	for _, j := range sealed.Points {
		p := r.point(j.ID)
		as := map[bool]sealedAs{false: sealedFiles, true: sealedChunks}[flags != nil]
		if j.State == stateNotSealed {
			as, lost = sealedNot, true
		}
		if p == nil || p.Sealed != as || (p.Verdict == plan.Lost) != (as == sealedNot) {
			t.Errorf("%v, %s: %+v", flags, j.ID, p)
		}
	}
	if (status == exitBad) != lost {
		t.Errorf("%v: status %d", flags, status)
	}
	for _, f := range r.Files {
		if f.State != fileSound && !(f.State == fileDoubt && strings.Contains(f.Findings[0].Text, "checksum")) {
			t.Errorf("%v, %s: %s %v", flags, f.File, f.State, f.Findings)
		}
	}
}

// wantTruth: what was sealed has the sha256 of the true disk.
func (l *laidSet) wantTruth(t *testing.T, sealed sealReport, truth sets.Truth) {
	t.Helper()
	for _, j := range sealed.Points {
		if j.State != stateSealed || j.ID != truth.Files[0] && !strings.HasSuffix(j.ID, "!"+truth.Files[0]) {
			continue
		}
		if j.SHA256 != truth.SHA256 && !truth.Lossy {
			t.Errorf("%s: the content was sealed as %s, the truth is %s", j.ID, j.SHA256, truth.SHA256)
		}
		return
	}
	if truth.Wants == sets.Right {
		t.Errorf("%s was not sealed: %+v", truth.Files[0], sealed.Points)
	}
}

// TestSealedMutatedSets does to sealed sets what happens to backups: what verify
// calls restorable, restore brings back as it was when it was sealed. What differs
// is found, whether the records show it or not.
func TestSealedMutatedSets(t *testing.T) {
	for _, m := range sets.Mutations() {
		for _, s := range mutatedSets(m) {
			t.Run(m.Name+"/"+s.Name, func(t *testing.T) {
				t.Parallel()
				l := laySet(t, s)
				sealed := map[string]string{} // sha256 by the file of the backup
				for _, p := range l.seal(t, "--sha256").Points {
					sealed[p.ID] = p.SHA256
				}
				expect, err := m.Apply(l.dir(), s)
				if err != nil {
					t.Fatal(err)
				}
				r, _ := l.verify(t)
				for _, truth := range s.Truth {
					l.wantVerdict(t, &r, truth, expect, sealed)
				}
			})
		}
	}
}

func (l *laidSet) wantVerdict(t *testing.T, r *verifyReport, truth sets.Truth, expect sets.Expect, sealed map[string]string) {
	t.Helper()
	p, may := r.point(truth.Files[0]), expect.Sealed(truth)
	switch {
	case p == nil && !may.Has(sets.Refuse):
		t.Errorf("%s is not in the report", truth.Files[0])
	case p == nil || p.Sealed == sealedNot:
	case p.Verdict == plan.Lost:
		if p.Sealed != sealedOpen && !may.Has(sets.Refuse) && !may.Has(sets.Doubt) { // otherwise the plan refuses
			t.Errorf("%s: lost (may: %s): %v", p.ID, may, p.Why)
		}
	case may == sets.Refuse && !p.asSealed():
		t.Errorf("%s: %s, %s; it should be lost", p.ID, p.Verdict, p.Sealed)
	case !p.asSealed():
		t.Errorf("%s: %s, but %s", p.ID, p.Verdict, p.Sealed)
	default:
		l.wantSealedContent(t, p, sealed)
	}
}

// asSealed: the files or the chunks are what was sealed. What a mutation did then
// changes nothing of the point, and a lossy one may have been sealed with other
// bytes than the truth.
func (p *pointReport) asSealed() bool { return p.Sealed == sealedFiles || p.Sealed == sealedChunks }

// wantSealedContent restores a point that verify calls restorable.
func (l *laidSet) wantSealedContent(t *testing.T, p *pointReport, sealed map[string]string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "disk.raw")
	args := append([]string{"restore", l.path, "-o", out, "--disk", diskTitle(&plan.Disk{Domain: p.Domain, Name: p.Disk}), "--at", p.ID, "--assume"}, l.flag...)
	if _, stderr, status := qbit(args...); status != exitDone {
		t.Errorf("%s: %s, and restore ends with %d: %s", p.ID, p.Verdict, status, stderr)
		return
	}
	if got := fileSHA256(t, out); got != sealed[p.ID] {
		t.Errorf("%s: %s, but it is %s and was sealed as %s", p.ID, p.Verdict, got, sealed[p.ID])
	}
}
