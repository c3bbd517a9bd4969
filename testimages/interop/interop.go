// Package interop finds the real tools that tests use as judges.
package interop

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
)

// Need skips the test when one of the tools is not installed. With
// QBIT_REQUIRE_INTEROP=1 in the environment, as in CI, it fails it instead.
func Need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		}
		if os.Getenv("QBIT_REQUIRE_INTEROP") == "1" {
			t.Fatalf("%s is not installed, and QBIT_REQUIRE_INTEROP=1 wants it", tool)
		}
		t.Skipf("%s is not installed", tool)
	}
}

// Run runs a tool and returns its standard output; any failure ends the test
// with what the tool printed.
func Run(t testing.TB, tool string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(tool, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s%s", tool, args, err, out, stderr.Bytes())
	}
	return out
}
