package build

import (
	"io"
	"slices"
)

// A Kind is what a reader must say about guest bytes.
type Kind uint8

const (
	// Absent bytes are not stored here: the backing file's, or zero.
	Absent Kind = iota
	// Zero bytes are recorded as zero and hide the backing file.
	Zero
	// Data bytes are stored as they are.
	Data
	// Compressed bytes are stored in a compressed cluster.
	Compressed
)

var kindNames = [...]string{"absent", "zero", "data", "compressed"}

func (k Kind) String() string { return kindNames[k] }

// A Run is a range of guest bytes of one kind.
type Run struct {
	Off, Len int64
	Kind     Kind
}

// A View is the truth about one virtual disk: the active one or a snapshot.
type View struct {
	Size int64
	// Runs cover [0, Size) in order; neighbours differ in kind.
	Runs []Run

	clusterSize int64
	content     map[uint64][]byte // by guest cluster; only Data and Compressed bytes count
}

// Bytes are the guest bytes with absent ones as zero. Only for disks that fit
// in memory.
func (v *View) Bytes() []byte { return v.Over(nil) }

// Over is Bytes with the backing disk's bytes where the view is absent; they
// read as zero from the end of backing on.
func (v *View) Over(backing []byte) []byte {
	b := make([]byte, v.Size)
	copy(b, backing)
	for _, r := range v.Runs {
		switch r.Kind {
		case Zero:
			clear(b[r.Off : r.Off+r.Len])
		case Data, Compressed:
			v.fill(b[r.Off:r.Off+r.Len], r.Off)
		}
	}
	return b
}

// ReadAt reads guest bytes, absent ones as zero, so that the truth about huge
// disks can be asked for in parts.
func (v *View) ReadAt(p []byte, off int64) (int, error) {
	n := int(max(0, min(int64(len(p)), v.Size-off)))
	clear(p[:n])
	end := off + int64(n)
	for _, r := range v.Runs {
		lo, hi := max(off, r.Off), min(end, r.Off+r.Len)
		if lo < hi && (r.Kind == Data || r.Kind == Compressed) {
			v.fill(p[lo-off:hi-off], lo)
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// fill copies stored bytes from guest offset off on.
func (v *View) fill(p []byte, off int64) {
	for len(p) > 0 {
		k, in := off/v.clusterSize, off%v.clusterSize
		n := copy(p, v.content[uint64(k)][in:])
		p, off = p[n:], off+int64(n)
	}
}

// KindAt is the kind of the byte at off.
func (v *View) KindAt(off int64) Kind {
	i, _ := slices.BinarySearchFunc(v.Runs, off, func(r Run, off int64) int {
		if r.Off+r.Len <= off {
			return -1
		}
		return 1
	})
	return v.Runs[i].Kind
}

// Sectors are the kinds of all 512-byte sectors, the last of which may be cut.
func (v *View) Sectors() []Kind {
	s := make([]Kind, 0, (v.Size+511)/512)
	for _, r := range v.Runs {
		for o := (r.Off + 511) / 512 * 512; o < r.Off+r.Len; o += 512 {
			s = append(s, r.Kind)
		}
	}
	return s
}

// add appends a run, cut to the size and joined to the one before it.
func (v *View) add(off, n int64, k Kind) {
	n = min(n, v.Size-off)
	if n <= 0 {
		return
	}
	if last := len(v.Runs) - 1; last >= 0 && v.Runs[last].Kind == k {
		v.Runs[last].Len += n
		return
	}
	v.Runs = append(v.Runs, Run{off, n, k})
}

// newView works out the truth about a disk of those clusters.
func newView(size, clusterSize uint64, clusters map[uint64]Cluster, content map[uint64][]byte) View {
	v := View{Size: int64(size), clusterSize: int64(clusterSize), content: content}
	pos := int64(0)
	for _, k := range sortedKeys(clusters) {
		off := int64(k * clusterSize)
		v.add(pos, off-pos, Absent)
		v.addCluster(off, clusters[k])
		pos = off + int64(clusterSize)
	}
	v.add(pos, v.Size-pos, Absent)
	return v
}

func (v *View) addCluster(off int64, c Cluster) {
	kinds := map[Form]Kind{ZeroPlain: Zero, ZeroPrealloc: Zero, Normal: Data, Packed: Compressed}
	if c.Form != Sub {
		v.add(off, v.clusterSize, kinds[c.Form])
		return
	}
	sub := v.clusterSize / 32
	for i := int64(0); i < 32; i++ {
		k := Absent
		switch {
		case c.Alloc>>i&1 == 1:
			k = Data
		case c.Zero>>i&1 == 1:
			k = Zero
		}
		v.add(off+i*sub, sub, k)
	}
}

// A SnapshotTruth is what a reader must say about an internal snapshot.
type SnapshotTruth struct {
	Snapshot
	Disk View
}

// A BitmapTruth is what a reader must say about a persistent bitmap.
type BitmapTruth struct {
	Bitmap
	Granularity int64
	// Dirty ranges: ascending, apart from each other, rounded out to the
	// granularity and cut at the virtual size.
	Dirty []Range
	// DirtyBytes is their sum.
	DirtyBytes int64
}
