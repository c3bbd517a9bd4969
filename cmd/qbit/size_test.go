package main

import "testing"

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "512": 512, "512b": 512, "1k": 1024, "1K": 1024, "64k": 65536, "1.5G": 3 << 29,
		"2M": 2 << 20, "3T": 3 << 40, "1P": 1 << 50, "7E": 7 << 60, "0.5k": 512, "1.0": 1, "0.0001k": 0,
		"9223372036854775807": 1<<63 - 1,
	} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
}

func TestParseSizeRefuses(t *testing.T) {
	for _, in := range []string{
		"", "k", "-1", "+1", "64KiB", "64kb", "1.5", "1.5b", ".5k", "1e3", "0x10", "1 k", "1,5G", "1.2.3k",
		"8E", "9223372036854775808", "1/2k", "1_000",
	} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", in, got)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for in, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1 << 20: "1.0 MiB", -1: "-1"} {
		if got := formatSize(in); got != want {
			t.Errorf("formatSize(%d) = %q, want %q", in, got, want)
		}
	}
}
