package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Reflinking is a folder in a new XFS of 512 MiB that can share blocks between
// files. It is mounted from a file, which only root may do, and where root may not
// the test is skipped as with Need.
func Reflinking(t testing.TB) string {
	t.Helper()
	Need(t, "mkfs.xfs", "mount", "umount", "truncate")
	dir := t.TempDir()
	image, folder := filepath.Join(dir, "xfs.img"), filepath.Join(dir, "xfs")
	Run(t, "truncate", "-s", "512M", image)
	Run(t, "mkfs.xfs", "-q", "-m", "reflink=1", image)
	if err := os.Mkdir(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, folder).CombinedOutput(); err != nil {
		if os.Getenv("QBIT_REQUIRE_INTEROP") == "1" {
			t.Fatalf("a file cannot be mounted, and QBIT_REQUIRE_INTEROP=1 wants it: %s", out)
		}
		t.Skipf("a file cannot be mounted: %s", out)
	}
	t.Cleanup(func() { Run(t, "umount", folder) })
	return folder
}
