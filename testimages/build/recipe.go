package build

// When a reader must notice that an image is broken.
const (
	// WhenOpen: opening must fail.
	WhenOpen = "open"
	// WhenRead: opening may fail; if it does not, reading the whole disk must.
	WhenRead = "read"
	// WhenSnapshots: listing the snapshots must fail. Guest data reads fine.
	WhenSnapshots = "snapshots"
	// WhenSnapshot: listing may work; opening or reading the snapshot with ID
	// "1" must fail. Guest data reads fine.
	WhenSnapshot = "snapshot"
	// WhenBitmaps: listing the bitmaps must fail, or loading the first one.
	// Guest data reads fine.
	WhenBitmaps = "bitmaps"
	// WhenRefcounts: only who loads the refcounts can notice. Guest data
	// reads fine.
	WhenRefcounts = "refcounts"
	// WhenAny: a reader cannot always tell. It may fail or not, in bounded
	// time and memory.
	WhenAny = "any"
)

// A Recipe is a sound image with one rule of the format broken.
type Recipe struct {
	// Name is unique; Rule is what is broken, in short.
	Name, Rule string
	// Structure and Field are the specification's names of what is wrong.
	Structure, Field string
	// When a reader must notice: one of the constants.
	When string
	// Image is the file; Data is its external data file, or nil.
	Image, Data []byte
	// Disk is what the guest data must read as all the same; nil where
	// reading must or may fail.
	Disk *View
	// Sound is what the guest read before the rule was broken; nil where there
	// was no such image.
	Sound *View
	// Files are what the image names, by name beside it, for who opens them.
	Files map[string][]byte
	// Format is what programs that guess take the file for; "" means qcow2.
	Format string
	// Endless: QEMU 7.2 takes all the memory and time it gets, even for check.
	Endless bool
	// CVE are the advisories about programs that did not look; "" for none.
	CVE string
}

// A book collects recipes.
type book struct {
	all []Recipe
}

// patch is a row of a table of recipes: one field of a sound image is set.
type patch struct {
	name, place string
	value       uint64
	field, rule string
}

func (b *book) add(when, structure string, img *Image, file []byte, p patch) {
	r := Recipe{
		Name: structure + ": " + p.name, Rule: p.rule, Structure: structure, Field: p.field,
		When: when, Image: file, Data: img.Data,
	}
	if structure != "compressed cluster" || p.field == "" { // others have streams of their own
		r.Sound = &img.Disk
	}
	if img.Data != nil && img.Spec.DataFile.Name != "" {
		r.Files = map[string][]byte{img.Spec.DataFile.Name: img.Data}
	}
	switch when {
	case WhenSnapshots, WhenSnapshot, WhenBitmaps, WhenRefcounts:
		r.Disk = &img.Disk
	}
	b.all = append(b.all, r)
}

func (b *book) patches(when, structure string, img *Image, rows []patch) {
	for _, p := range rows {
		b.add(when, structure, img, img.Patch(p.place, p.value), p)
	}
}

// Recipes returns all broken images, the same ones every time.
func Recipes() []Recipe {
	b := &book{}
	b.header()
	b.features()
	b.backing()
	b.extensions()
	b.encryption()
	b.refcounts()
	b.l1()
	b.l2()
	b.l2Fields()
	b.subclusters()
	b.dataFiles()
	b.streams()
	b.zstdStreams()
	b.bombs()
	b.snapshots()
	b.snapshotDisks()
	b.bitmapsExtension()
	b.bitmapDirectory()
	b.bitmapTables()
	b.truncations()
	b.areas()
	b.copiedBits()
	b.shared()
	b.names()
	b.otherFormats()
	b.advisories()
	return b.all
}

// small is the sound image that most recipes begin with.
func small() *Image {
	return Must(Spec{Size: 12 * 512, Clusters: map[uint64]Cluster{
		0: {Form: Normal}, 1: {Form: Packed}, 2: {Form: ZeroPlain}, 3: {Form: ZeroPrealloc}, 5: {Form: Packed}, 7: {Form: Normal},
	}})
}

// wide is small with clusters of 4 KiB, so that an offset can be a multiple of
// 512 and still not be aligned.
func wide() *Image {
	return Must(Spec{Size: 6 << 12, ClusterBits: 12, Clusters: map[uint64]Cluster{
		0: {Form: Normal}, 1: {Form: ZeroPrealloc}, 2: {Form: Packed}, 5: {Form: Normal},
	}})
}
