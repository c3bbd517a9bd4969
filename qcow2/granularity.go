package qcow2

// DefaultGranularity is that of a new bitmap where nothing else is said, in bytes: as in
// QEMU a cluster, but 4 to 64 KiB; more for a disk of size bytes that has too many of
// those for QEMU to read a bit of each.
func DefaultGranularity(clusterSize, size int64) int64 {
	g := min(max(clusterSize, 4<<10), 64<<10)
	for (size-1)/g >= maxBitmapBits {
		g *= 2
	}
	return g
}
