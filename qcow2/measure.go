package qcow2

// A Measurement is how large the file of an image can become, in bytes. The bytes of
// an external data file count as if they were in it.
type Measurement struct {
	// Required is enough for the clusters that hold something, with the tables of the
	// whole disk.
	Required int64
	// Full is enough for every cluster of the disk.
	Full int64
}

// Measure says how large an image of that layout can become when used clusters of its
// disk hold something. It counts as qemu-img measure does: a disk that Preallocation
// has space for needs all of it. Compressed clusters are counted as plain ones. Errors
// are those of a layout that cannot be, as far as it can be told without making it.
func (l Layout) Measure(used int64) (Measurement, error) {
	l.setDefaults()
	g, err := l.geometry()
	if err != nil {
		return Measurement{}, err
	}
	if err := l.validate(); err != nil {
		return Measurement{}, err
	}
	all := ceil(l.Size, g.ClusterSize())
	full := all + g.tableClusters(l.Size, all)
	m := Measurement{Full: full << g.ClusterBits}
	m.Required = m.Full - max(0, all-used)<<g.ClusterBits
	if l.Preallocation == PreallocationFalloc || l.Preallocation == PreallocationFull {
		m.Required = m.Full
	}
	return m, nil
}

// tableClusters is how many clusters the header and the tables of a disk of size bytes
// take, when all of its data clusters are allocated.
func (g Geometry) tableClusters(size, data int64) int64 {
	l2 := int64(g.l1EntriesFor(uint64(size)))
	n := 1 + l2 + ceil(l2*8, g.ClusterSize()) // the header, the L2 tables, the L1 table
	return n + g.refcountClusters(n+data)
}

// refcountClusters is how many clusters the refcount table and its blocks take in an
// image with n other clusters. They count themselves: it is the least number that is
// enough.
func (g Geometry) refcountClusters(n int64) int64 {
	for own := int64(0); ; {
		blocks := ceil(n+own, g.refcountsPerBlock())
		need := blocks + ceil(blocks*8, g.ClusterSize())
		if need == own {
			return own
		}
		own = need
	}
}

// MeasureBitmaps is how many bytes bitmaps of a disk of size bytes take in an image
// with clusters of clusterSize: their bits, as if all were stored, their tables and the
// directory. It needs only the names and granularities; one whose granularity is not
// known is left out.
func MeasureBitmaps(bitmaps []BitmapInfo, size, clusterSize int64) int64 {
	var clusters, directory int64
	for _, b := range bitmaps {
		if b.Granularity <= 0 {
			continue
		}
		data := ceil(ceil(ceil(size, b.Granularity), 8), clusterSize)
		clusters += data + ceil(data*8, clusterSize)
		directory += ceil(bitmapEntryLength+int64(len(b.Name)), 8) * 8
	}
	return (clusters + ceil(directory, clusterSize)) * clusterSize
}

// ceil is a/b, rounded up; a is not negative.
func ceil(a, b int64) int64 {
	n := a / b
	if a%b != 0 {
		n++
	}
	return n
}
