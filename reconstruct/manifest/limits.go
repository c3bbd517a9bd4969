package manifest

// Limits bound what a document may make a reader do. A field of 0 is the default.
type Limits struct {
	// Bytes is the longest document; 1 GiB by default, which describes 256 TiB of
	// data. Memory grows with the document, to about its size.
	Bytes int64
	// Points is how many points all disks have together; 1<<20 by default.
	Points int64
	// Files is how many files all points have together; 1<<20 by default.
	Files int64
	// Size is that of the largest disk in bytes; 16 PiB by default.
	Size int64
	// Chunks is how many chunks the disks of all points have together, recorded or
	// not: so much has to be walked to check every root; 1<<34 by default, which
	// is 1024 points of 64 TiB.
	Chunks int64
}

// maxName is the longest name or path in bytes.
const maxName = 4096

func (l *Limits) withDefaults() Limits {
	var v Limits
	if l != nil {
		v = *l
	}
	usual := Limits{Bytes: 1 << 30, Points: 1 << 20, Files: 1 << 20, Size: 1 << 54, Chunks: 1 << 34}
	for _, f := range []struct {
		value *int64
		usual int64
	}{{&v.Bytes, usual.Bytes}, {&v.Points, usual.Points}, {&v.Files, usual.Files}, {&v.Size, usual.Size}, {&v.Chunks, usual.Chunks}} {
		if *f.value <= 0 {
			*f.value = f.usual
		}
	}
	return v
}
