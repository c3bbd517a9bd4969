package qcow2_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/crash"
)

// version2 makes a spec one of version 2.
func version2(s *build.Spec) {
	s.Version, s.Bitmaps, s.RefcountBits, s.HeaderLength, s.FeatureNames = 2, nil, 0, 0, nil
	s.Clusters = guestClusters()
	delete(s.Clusters, 5)
	delete(s.Clusters, 6)
}

// backingTrials are images whose backing file can be named anew.
func backingTrials() []*trial {
	all := slices.Clone(smallTrials())
	for name, change := range map[string]func(*build.Spec){
		"version 2":               version2,
		"version 2, backing file": func(s *build.Spec) { version2(s); s.Backing, s.BackingFormat = "base.raw", "raw" },
		"1 KiB, long name":        func(s *build.Spec) { s.ClusterBits, s.Backing = 10, strings.Repeat("n", 300) },
		"2 KiB, stock layout": func(s *build.Spec) {
			stock(s)
			s.ClusterBits, s.Backing, s.BackingFormat = 11, strings.Repeat("n", 600), "qcow2"
		},
		"large unknown extension": func(s *build.Spec) {
			s.ClusterBits, s.Backing, s.BackingFormat = 12, "old.raw", "raw"
			s.Extensions = []build.Extension{{Type: 0x33334444, Data: make([]byte, 600)}}
		},
	} {
		all = append(all, newTrial(name, build.Must(spec(change))))
	}
	return all
}

// backings are what a header is to name.
func backings() []*qcow2.Ref {
	return []*qcow2.Ref{
		nil,
		{Name: "b", Format: "raw"},
		{Name: "/a/folder/with/a/name/new.qcow2", Format: "qcow2"},
		{Name: strings.Repeat("long/", 90), Format: "raw"},
		{Name: strings.Repeat("x", 1023), Format: "a longer format"},
	}
}

func sameRef(a, b *qcow2.Ref) bool { return a == b || a != nil && b != nil && *a == *b }

// headerBeside is what the first cluster says beside the backing file.
func headerBeside(img *qcow2.Image) string {
	h := img.Header()
	h.BackingFileOffset, h.BackingFileSize = 0, 0
	h.AutoclearFeatures &= qcow2.AutoclearBitmaps | qcow2.AutoclearRawData
	s := fmt.Sprintf("%+v", h)
	for _, e := range img.Extensions() {
		if e.Type != qcow2.ExtBackingFormat && e.Type != qcow2.ExtFeatureNames {
			s += fmt.Sprintf(" %x %x", e.Type, e.Data)
		}
	}
	return s
}

// Every state that a crash can leave names the old backing file or the new one, each
// with its format, and says otherwise what it said.
func TestEditorBackingCrash(t *testing.T) {
	states, changes, refused := 0, 0, 0
	for _, c := range backingTrials() {
		for i, ref := range backings() {
			f := crash.New(c.file)
			e, err := qcow2.Edit(f, f.Size(), nil)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			was, beside := e.Image().Backing(), headerBeside(e.Image())
			if err := e.SetBacking(ref); err != nil {
				var unsupported *qcow2.UnsupportedError
				if refused++; !errors.As(err, &unsupported) || len(f.Ops()) > 0 {
					t.Errorf("%s, %d: %v, and %v", c.name, i, err, f.Ops())
				}
				if odd := c.full || strings.Contains(c.name, "unknown") || c.name == "long header" || strings.Contains(c.name, "raw data"); !odd && i < 3 {
					t.Errorf("%s: a name of %d bytes is refused: %v", c.name, len(ref.Name), err)
				}
				continue
			}
			changes++
			f.Mark()
			f.States(nil, func(s *crash.State) bool {
				states++
				img, err := qcow2.Open(s, s.Size(), nil)
				if err != nil {
					t.Fatalf("%s, %d, %v: %v", c.name, i, s, err)
				}
				have := img.Backing()
				if !sameRef(have, ref) && (s.Marks > 0 || !sameRef(have, was)) {
					t.Errorf("%s, %d, %v: the backing file is %+v, want %+v or %+v", c.name, i, s, have, was, ref)
				}
				if got := headerBeside(img); got != beside {
					t.Errorf("%s, %d, %v: the header says\n%s, want\n%s", c.name, i, s, got, beside)
				}
				if a, err := build.AuditFile(s, s.Size()); err != nil || len(a.Problems) > 0 || a.Stale {
					t.Errorf("%s, %d, %v: %v, %+v", c.name, i, s, err, a)
				}
				return !t.Failed()
			})
			if i > 0 && c.size > 0 && !bytes.Equal(f.Bytes()[512:1024], c.file[512:1024]) && !c.full {
				c.thenBitmap(t, f, ref)
			}
		}
	}
	t.Logf("%d states of %d changes; %d refused", states, changes, refused)
	if changes < 100 {
		t.Errorf("only %d changes", changes)
	}
}

// thenBitmap adds a bitmap to the file, which must leave the name alone.
func (c *trial) thenBitmap(t *testing.T, f *crash.File, ref *qcow2.Ref) {
	t.Helper()
	e, err := qcow2.Edit(f, f.Size(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var unsupported *qcow2.UnsupportedError
	err = e.Update(doAll([]change{{kind: addBitmap, name: "later", bits: newBits(c.size, 512)}}))
	if errors.As(err, &unsupported) {
		return // version 2, or no room
	}
	if err != nil || !sameRef(e.Image().Backing(), ref) {
		t.Errorf("%s: a bitmap more: %v, backing file %+v", c.name, err, e.Image().Backing())
	}
}

// What cannot be a backing file is refused before anything is written.
func TestEditorBackingRefused(t *testing.T) {
	c := smallTrials()[0]
	for _, ref := range []*qcow2.Ref{{Format: "raw"}, {Name: "x"}, {Name: strings.Repeat("x", 1024), Format: "raw"}} {
		f := crash.New(c.file)
		e, err := qcow2.Edit(f, f.Size(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.SetBacking(ref); err == nil || len(f.Ops()) > 0 {
			t.Errorf("%.20q, %q: %v, and %v", ref.Name, ref.Format, err, f.Ops())
		}
	}
}
