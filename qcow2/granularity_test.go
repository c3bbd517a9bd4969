package qcow2_test

import (
	"testing"

	"github.com/qbitkit/qbit/qcow2"
)

func TestDefaultGranularity(t *testing.T) {
	for cluster, want := range map[int64]int64{512: 4096, 4096: 4096, 8192: 8192, 65536: 65536, 2 << 20: 65536} {
		if got := qcow2.DefaultGranularity(cluster, 1<<30); got != want {
			t.Errorf("cluster size %d: %d, want %d", cluster, got, want)
		}
	}
	for size, want := range map[int64]int64{0: 65536, 32 << 40: 65536, 32<<40 + 1: 128 << 10, 64 << 40: 128 << 10, 65 << 40: 256 << 10} {
		if got := qcow2.DefaultGranularity(65536, size); got != want {
			t.Errorf("disk of %d bytes: %d, want %d", size, got, want)
		}
	}
}
