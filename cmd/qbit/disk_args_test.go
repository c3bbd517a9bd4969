package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseDisk(t *testing.T) {
	for _, test := range []struct {
		arg, files string
		want       []linkArg
	}{
		{"a", "a", []linkArg{{name: "a", path: "a"}}},
		{"gone", "", []linkArg{{name: "gone", path: "gone"}}},
		{"a@s", "a", []linkArg{{name: "a@s", path: "a", snapshot: "s"}}},
		{"a@s", "a a@s", []linkArg{{name: "a@s", path: "a@s"}}},
		{"a@b@c", "a", []linkArg{{name: "a@b@c", path: "a", snapshot: "b@c"}}},
		{"a@b@c", "a a@b", []linkArg{{name: "a@b@c", path: "a@b", snapshot: "c"}}},
		{"gone@s", "", []linkArg{{name: "gone@s", path: "gone@s"}}},
		{"raw:a", "a", []linkArg{{name: "raw:a", path: "a", raw: true}}},
		{"raw:a@s", "a", []linkArg{{name: "raw:a@s", path: "a@s", raw: true}}},
		{"a+b", "a b", []linkArg{{name: "a", path: "a"}, {name: "b", path: "b"}}},
		{"a+b", "a b a+b", []linkArg{{name: "a+b", path: "a+b"}}},
		{"a+b+c", "a+b c a b", []linkArg{{name: "a+b", path: "a+b"}, {name: "c", path: "c"}}},
		{"a+b+c", "a a+b b+c", []linkArg{{name: "a", path: "a"}, {name: "b+c", path: "b+c"}}},
		{"a+raw:b+c@s", "a b c", []linkArg{{name: "a", path: "a"}, {name: "raw:b", path: "b", raw: true},
			{name: "c@s", path: "c", snapshot: "s"}}},
		{"raw:a+b", "a b a+b", []linkArg{{name: "raw:a+b", path: "a+b", raw: true}}},
		{"a+gone", "a", []linkArg{{name: "a", path: "a"}, {name: "gone", path: "gone"}}},
	} {
		files := strings.Fields(test.files)
		exists := func(path string) bool { return slices.Contains(files, path) }
		got := parseDisk(test.arg, exists)
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(linkArg{})); diff != "" {
			t.Errorf("%s with files %q (-want +got):\n%s", test.arg, test.files, diff)
		}
	}
}

// A name full of signs must not take exponential time.
func TestParseDiskBounded(t *testing.T) {
	calls := 0
	parseDisk(strings.Repeat("a+", 200)+"gone", func(path string) bool {
		calls++
		return !strings.Contains(path, "gone")
	})
	if calls > 100_000 {
		t.Errorf("%d files were looked for", calls)
	}
}
