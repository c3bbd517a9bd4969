package reconstruct_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
)

// TestOutputInUse: an image that somebody has open is not replaced.
func TestOutputInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := qcow2.Lock(f, qcow2.LockRead); errors.Is(err, qcow2.ErrNoLocks) {
		t.Skip(err)
	}
	replace := &reconstruct.OutputOptions{Overwrite: true}
	if _, err := reconstruct.CreateOutput(path, replace); !errors.Is(err, qcow2.ErrLocked) {
		t.Errorf("in use: %v", err)
	}
	qcow2.Unlock(f)
	out, err := reconstruct.CreateOutput(path, replace)
	if err != nil {
		t.Fatalf("not in use: %v", err)
	}
	out.Abort()
}
