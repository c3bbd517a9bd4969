package qcow2_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// checkBytes checks an image in memory. Its findings come back in order.
func checkBytes(t testing.TB, image, data []byte, opts *qcow2.CheckOptions) (*qcow2.CheckResult, []qcow2.Finding) {
	t.Helper()
	res, all, err := tryCheck(image, data, opts)
	if err != nil {
		t.Fatalf("check: %v", err)
	}
	return res, all
}

func tryCheck(image, data []byte, opts *qcow2.CheckOptions) (*qcow2.CheckResult, []qcow2.Finding, error) {
	var all []qcow2.Finding
	open := &qcow2.Options{OpenRef: func(ref qcow2.Ref) (qcow2.Disk, error) {
		if ref.Kind == qcow2.RefData && data != nil {
			return memDisk(data), nil
		}
		return nil, nil
	}}
	res, err := qcow2.Check(context.Background(), bytes.NewReader(image), int64(len(image)), open, opts,
		func(f qcow2.Finding) error {
			all = append(all, f)
			return nil
		})
	return res, all, err
}

// worst are the findings that are no notices.
func worst(all []qcow2.Finding) []qcow2.Finding {
	var bad []qcow2.Finding
	for _, f := range all {
		if f.Severity != qcow2.SeverityNotice {
			bad = append(bad, f)
		}
	}
	return bad
}

// TestCheckSound finds nothing in sound images. The clusters of stale bitmaps are
// leaks, for everybody.
func TestCheckSound(t *testing.T) {
	for seed := range seeds() / 4 {
		s := build.Random(seed)
		res, all := checkBytes(t, s.Bytes, s.Data, nil)
		if s.Spec.StaleBitmaps && res.Corruptions == 0 && res.CheckErrors == 0 {
			continue
		}
		if bad := worst(all); len(bad) > 0 || !res.Clean() || res.Incomplete {
			t.Fatalf("seed %d: %+v\n%v", seed, res, bad)
		}
	}
}

// TestCheckWindows wants the same findings however little memory there is.
func TestCheckWindows(t *testing.T) {
	for seed := range seeds() / 16 {
		s := build.Random(seed)
		broken := corrupt(s.Image, seed)
		res, all, err := tryCheck(broken, s.Data, nil)
		if err != nil {
			continue // an unsupported feature by now
		}
		for _, memory := range []int64{1 << 10, 3 << 10} {
			res2, all2 := checkBytes(t, broken, s.Data, &qcow2.CheckOptions{Memory: memory})
			if d := cmp.Diff(summary(all), summary(all2)); d != "" {
				t.Fatalf("seed %d, %d bytes: %s", seed, memory, d)
			}
			if res.Leaks != res2.Leaks || res.ImageEnd != res2.ImageEnd ||
				res.AllocatedClusters != res2.AllocatedClusters || res.FragmentedClusters != res2.FragmentedClusters {
				t.Fatalf("seed %d, %d bytes: %+v, %+v", seed, memory, res, res2)
			}
		}
	}
}

// summary counts wrong refcounts, and says which other findings there are: a table
// that two disks share is told once or twice, and of two uses of a cluster the one
// that is met last.
func summary(all []qcow2.Finding) map[string]int64 {
	sums := map[string]int64{}
	for _, f := range all {
		switch f.Kind {
		case qcow2.FindRefcountHigh, qcow2.FindRefcountLow, qcow2.FindRefcountWidth:
			sums[string(f.Kind)] += f.Clusters
		case qcow2.FindOverlap:
			sums[fmt.Sprintf("overlap %v", f.Cluster)] = 1
		default:
			sums[fmt.Sprintf("%s %s %v", f.Severity, f.Kind, f.Host)] = 1
		}
	}
	return sums
}

// quiet are recipes of which a check says nothing: it does not decompress, and the
// others break no rule that a check knows.
var quiet = map[string]bool{
	"header: raw data bit without a data file":         true,
	"header: padding":                                  true,
	"header: bytes behind the extensions":              true,
	"header extension: feature name cut":               true,
	"header extension: feature name of no known field": true,
	"header extension: feature name of bit 64":         true,
	"snapshot table: state beyond all":                 true,
	"snapshot table: two snapshots with one ID":        true,
	"compressed cluster: cut at its middle":            true,
}

// TestCheckFindsRecipes wants something said of every image that breaks a rule.
func TestCheckFindsRecipes(t *testing.T) {
	for _, r := range build.Recipes() {
		_, all, err := tryCheck(r.Image, r.Data, nil)
		if err != nil || r.Structure == "compressed cluster" || quiet[r.Name] || r.Files[build.SecretName] != nil {
			continue
		}
		if len(all) == 0 {
			t.Errorf("%s: nobody noticed: %s", r.Name, r.Rule)
		}
		for _, f := range all {
			if means, _ := qcow2.Explain(f.Kind); means == "" || f.Found == "" || f.Wanted == "" || f.Structure == "" {
				t.Errorf("%s: half a finding: %+v", r.Name, f)
			}
		}
	}
}

// TestCheckKinds wants findings of that kind and severity.
func TestCheckKinds(t *testing.T) {
	want := map[string]string{
		"bitmap directory: two of one name":              "corruption bitmap-name",
		"bitmap directory: padding":                      "notice bitmap-padding",
		"bitmap directory: reserved flag 3":              "corruption bitmap-flags",
		"bitmap directory: type 2":                       "corruption bitmap-type",
		"bitmap directory: unknown extra data":           "notice bitmap-extra-data",
		"bitmap directory: table too small":              "corruption bitmap-table",
		"bitmap data: bits beyond the disk":              "notice bitmap-tail",
		"header extension: bitmaps: directory unaligned": "corruption bitmaps-extension",
		"bitmap directory: cut by its size":              "corruption bitmap-directory",
		"bitmap table: data unaligned":                   "corruption bitmap-table-entry",
		"L2 table: zero bit in version 2":                "corruption zero-flag",
		"L2 table: zero bit with extended entries":       "corruption zero-flag",
		"header: cluster_bits 8":                         "corruption header",
	}
	for _, r := range build.Recipes() {
		kind, ok := want[r.Name]
		if !ok {
			continue
		}
		delete(want, r.Name)
		_, all := checkBytes(t, r.Image, r.Data, nil)
		if summary := kinds(all); !summary[kind] {
			t.Errorf("%s: no %s in %v", r.Name, kind, all)
		}
	}
	if len(want) > 0 {
		t.Errorf("no recipes %v", want)
	}
}

func kinds(all []qcow2.Finding) map[string]bool {
	set := map[string]bool{}
	for _, f := range all {
		set[string(f.Severity)+" "+string(f.Kind)] = true
	}
	return set
}

// TestCheckOverlap points an L2 entry at the refcount table, and raises its refcount:
// qemu-img check finds nothing then.
func TestCheckOverlap(t *testing.T) {
	img := build.Must(build.Spec{Size: 8 * 512, Clusters: map[uint64]build.Cluster{0: {Form: build.Normal}}})
	table := img.At("refcount_table").Off
	b := bytes.Clone(img.Bytes)
	binary.BigEndian.PutUint64(b[img.Entry(1).Off:], uint64(table))
	binary.BigEndian.PutUint16(b[img.At("refcount_block[0]").Off+table/512*2:], 2)
	_, all := checkBytes(t, b, nil, nil)
	if len(all) != 1 || all[0].Kind != qcow2.FindOverlap || all[0].Cluster != qcow2.HostOffset(table) ||
		all[0].GuestOff != 512 || all[0].GuestLen != 512 {
		t.Fatalf("%+v", all)
	}
}

// TestCheckStops wants the errors of the caller and of the context back.
func TestCheckStops(t *testing.T) {
	s := build.Must(build.Spec{Size: 4096, Clusters: map[uint64]build.Cluster{0: {Form: build.Normal}}})
	broken := s.Patch("refcount_table[0]", 0)
	img, err := openBuilt(broken, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	if _, err := img.Check(context.Background(), nil, func(qcow2.Finding) error { return enough }); err != enough {
		t.Fatalf("error is %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := img.Check(ctx, nil, func(qcow2.Finding) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v", err)
	}
}
