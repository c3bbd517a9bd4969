package build

// A Form says how a guest cluster is stored.
type Form uint8

const (
	// Unallocated: nothing is stored; reads go to the backing file.
	Unallocated Form = iota
	// ZeroPlain reads as zeros and has no host cluster.
	ZeroPlain
	// ZeroPrealloc reads as zeros and owns a host cluster full of junk.
	ZeroPrealloc
	// Normal is a standard cluster with data.
	Normal
	// Packed is a compressed cluster.
	Packed
	// Sub is a cluster of 32 subclusters; extended L2 entries only.
	Sub
)

// A Cluster is one guest cluster. The zero value is unallocated.
type Cluster struct {
	Form Form
	// Content is what the host cluster holds, one whole cluster; nil for bytes
	// made up from the image's seed, the view and the cluster's index.
	Content []byte
	// Alloc and Zero are the subcluster allocation bitmap of a Sub cluster,
	// bit x for subcluster x. They must not overlap.
	Alloc, Zero uint32
	// Prealloc gives a Sub cluster a host cluster even where Alloc is 0.
	Prealloc bool
	// Share: clusters of one image (in any view) with the same nonempty key
	// have one host cluster. Their Form must store the same bytes.
	Share string
	// Stream is what a Packed cluster stores, as it is, instead of Content
	// compressed. The truth is Content all the same.
	Stream []byte
	// Gap is how many junk bytes stand before the stream of a Packed cluster.
	Gap int
	// Sectors overrides the count of additional sectors of a Packed cluster.
	Sectors *uint64
}

// An Extension is a header extension of any type.
type Extension struct {
	Type uint32
	Data []byte
}

// A Feature is an entry of the feature name table. Kind is 0 for incompatible,
// 1 for compatible, 2 for autoclear features.
type Feature struct {
	Kind, Bit uint8
	Name      string
}

// A DataFile is an external data file.
type DataFile struct {
	Name string // empty: no name extension
	Raw  bool   // the raw external data bit
}

// A Snapshot is an internal snapshot.
type Snapshot struct {
	ID, Name            string
	Seconds, Nanosecond uint32
	VMClock             uint64
	// VMState is stored beyond the end of the disk, as the format wants it.
	VMState []byte
	// DiskSize in bytes; 0 means that of the image.
	DiskSize uint64
	// Bare leaves out all extra data (version 2 only). Otherwise there are the
	// 16 bytes that the format defines, and Extra after them.
	Bare  bool
	Extra []byte
	// Copy takes the active disk as it is, sharing its L2 tables, as a fresh
	// snapshot does; Clusters is ignored then.
	Copy     bool
	Clusters map[uint64]Cluster
}

// A Range is a run of guest bytes.
type Range struct{ Off, Len int64 }

// Flags of a bitmap directory entry.
const (
	InUse               = 1
	Auto                = 2
	ExtraDataCompatible = 4
)

// A Bitmap is a persistent bitmap.
type Bitmap struct {
	Name            string
	GranularityBits int // 0 means 9; use NoGranularity for 2^0
	NoGranularity   bool
	Flags           uint32
	Type            uint8 // 0 means 1, dirty tracking; OddType for a real 0
	OddType         bool
	Extra           []byte
	// Dirty bytes; each range is rounded out to the granularity.
	Dirty []Range
	// Literal stores clusters of all zeros or all ones as data too.
	Literal bool
	// Entries overrides the count of entries of the bitmap table.
	Entries *uint32
}

// An End says where the file ends.
type End uint8

const (
	// EndCluster: at the end of the last host cluster.
	EndCluster End = iota
	// EndSector: at the sector that holds the last byte which a reader needs.
	EndSector
	// EndByte: right after the last byte which a reader needs.
	EndByte
)

// A Spec says what an image holds. The zero value is an empty version 3 image
// of size 0 with 512-byte clusters.
type Spec struct {
	Version      int    // 2 or 3; 0 means 3
	ClusterBits  int    // 9 to 21; 0 means 9
	RefcountBits int    // 1 to 64; 0 means 16
	Size         uint64 // virtual size in bytes, any value
	ExtendedL2   bool
	Zstd         bool

	// HeaderLength 0 means 72 (version 2), 104, or 112 where a compression
	// type must be named. Fields beyond are zero unless HeaderTail fills them,
	// from byte 112 on.
	HeaderLength int
	HeaderTail   []byte
	// Incompatible, Compatible and Autoclear bits are set beside those that
	// the rest of the Spec needs.
	Incompatible, Compatible, Autoclear uint64
	CryptMethod                         uint32

	// Clusters of the active disk by guest cluster index.
	Clusters  map[uint64]Cluster
	Snapshots []Snapshot
	// ExtraL1 entries (all zero) are added to the active L1 table.
	ExtraL1 int

	Backing, BackingFormat string
	DataFile               *DataFile
	FeatureNames           []Feature
	Extensions             []Extension
	// PadByte fills the padding of header extensions.
	PadByte byte

	Bitmaps []Bitmap
	// StaleBitmaps leaves the autoclear bit of the bitmaps extension clear.
	StaleBitmaps bool

	// Seed feeds made-up contents; Shuffle scatters data over the host.
	Seed    uint64
	Shuffle bool
	End     End
}

// The bits that this package knows of the three feature fields.
const (
	Dirty           = 1 << 0 // incompatible
	Corrupt         = 1 << 1 // incompatible
	externalData    = 1 << 2 // incompatible
	compressionType = 1 << 3 // incompatible
	extendedL2      = 1 << 4 // incompatible
	LazyRefcounts   = 1 << 0 // compatible
	bitmapsBit      = 1 << 0 // autoclear
	rawDataBit      = 1 << 1 // autoclear
)
