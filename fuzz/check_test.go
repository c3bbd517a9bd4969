package fuzz

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
)

// maxFindings is how many findings FuzzCheck takes before it has seen enough.
const maxFindings = 10000

var errEnough = errors.New("enough findings")

// FuzzCheck checks images. Properties: the sums are those of the findings; every
// finding says what, where, found, wanted and what it means; with little memory the
// verdict is the same; a disk that cannot be read whole has a finding, compressed
// streams aside.
func FuzzCheck(f *testing.F) {
	for i, b := range seedFiles(f) {
		f.Add(b, uint16(1000*i))
	}
	f.Fuzz(func(t *testing.T, file []byte, memory uint16) {
		img, err := openImage(file, 0)
		if err != nil {
			if finding, ok := qcow2.HeaderFinding(err); ok {
				wholeFinding(t, finding)
			}
			return
		}
		res, ok := checkOnce(t, img, 0)
		small, smallOK := checkOnce(t, img, int64(memory)+1)
		if ok && smallOK && res.Clean() != small.Clean() {
			t.Fatalf("%+v, and with %d bytes of memory %+v", res, memory, small)
		}
		if !ok || !res.Clean() || img.Size() > maxWhole {
			return
		}
		for e, err := range img.Extents(0, img.Size()) {
			if err != nil && !errors.As(err, new(*qcow2.UnsupportedError)) && !errors.As(err, new(*qcow2.RefError)) {
				t.Fatalf("clean, and the walk fails after %+v: %v", e, err)
			}
		}
	})
}

// checkOnce checks an image; false where it was not checked to the end.
func checkOnce(t *testing.T, img *qcow2.Image, memory int64) (*qcow2.CheckResult, bool) {
	var corruptions, leaks, notices, unreadable int64
	total := 0
	res, err := img.Check(context.Background(), &qcow2.CheckOptions{Memory: memory}, func(f qcow2.Finding) error {
		wholeFinding(t, f)
		switch {
		case f.Kind == qcow2.FindUnreadable:
			unreadable++
		case f.Severity == qcow2.SeverityCorruption:
			corruptions += max(1, f.Clusters)
		case f.Severity == qcow2.SeverityLeak:
			leaks += max(1, f.Clusters)
		default:
			notices++
		}
		if total++; total > maxFindings {
			return errEnough
		}
		return nil
	})
	if err == errEnough {
		return res, false
	}
	if err != nil {
		t.Fatal(err)
	}
	if res.Corruptions != corruptions || res.Leaks != leaks || res.Notices != notices || res.CheckErrors != unreadable {
		t.Fatalf("%+v, and the findings have %d corruptions, %d leaks, %d notices", res, corruptions, leaks, notices)
	}
	return res, true
}

func wholeFinding(t *testing.T, f qcow2.Finding) {
	if means, _ := qcow2.Explain(f.Kind); means == "" || f.Severity == "" || f.Structure == "" || f.Found == "" ||
		f.Wanted == "" || f.Clusters < 0 || f.GuestLen < 0 || !bytes.ContainsAny([]byte(f.String()), ":") {
		t.Fatalf("half a finding: %+v", f)
	}
}
