package build

func (b *book) l1() {
	img := wide()
	e := img.Field("l1[0]")
	b.patches(WhenRead, "L1 table", img, []patch{
		{"reserved low bits", "l1[0]", e | 1<<8, "entry 0", "bits 0 to 8 are reserved"},
		{"reserved high bits", "l1[0]", e | 1<<56, "entry 0", "bits 56 to 62 are reserved"},
		{"L2 table unaligned", "l1[0]", e + 512, "entry 0", "an L2 table is aligned to a cluster"},
		{"L2 table beyond the end", "l1[0]", copied | 1<<40, "entry 0", "an L2 table lies in the file"},
		{"L2 table at the highest offset", "l1[0]", copied | (1<<56 - 1<<12), "entry 0", "an L2 table lies in the file"},
	})
	b.patches(WhenAny, "L1 table", img, []patch{
		{"points at itself", "l1[0]", uint64(img.At("l1").Off) | copied, "entry 0", "a cluster has one use"},
	})
	past := Must(Spec{Size: 80 * 512, Clusters: map[uint64]Cluster{0: {Form: Normal}, 70: {Form: Normal}}})
	b.patches(WhenRead, "L1 table", past, []patch{
		{"second L2 table beyond the end", "l1[1]", copied | 1<<30, "entry 1", "an L2 table lies in the file"},
	})
}

func (b *book) l2() {
	img := wide()
	data, zero := img.Field("l2[0][0]"), img.Field("l2[0][1]")
	b.patches(WhenRead, "L2 table", img, []patch{
		{"reserved low bits", "l2[0][0]", data | 1<<8, "entry 0", "bits 1 to 8 are reserved"},
		{"reserved bit 1", "l2[0][0]", data | 1<<1, "entry 0", "bits 1 to 8 are reserved"},
		{"reserved high bits", "l2[0][0]", data | 1<<56, "entry 0", "bits 56 to 61 are reserved"},
		{"reserved bit 61", "l2[0][0]", data | 1<<61, "entry 0", "bits 56 to 61 are reserved"},
		{"cluster unaligned", "l2[0][0]", data + 512, "entry 0", "a host cluster is aligned"},
		{"cluster beyond the end", "l2[0][0]", copied | 1<<40, "entry 0", "a host cluster lies in the file"},
		{"cluster at the highest offset", "l2[0][5]", copied | (1<<56 - 1<<12), "entry 5", "a host cluster lies in the file"},
		{"points at the header", "l2[0][0]", copied, "entry 0", "offset 0 with bit 63 is for external data files"},
		{"zero cluster unaligned", "l2[0][1]", zero + 512, "entry 1", "a host cluster is aligned"},
	})
	b.patches(WhenAny, "L2 table", img, []patch{
		{"points at itself", "l2[0][0]", uint64(img.At("l2[0]").Off) | copied, "entry 0", "a cluster has one use"},
		{"zero cluster beyond the end", "l2[0][1]", copied | 1<<40 | 1, "entry 1", "a host cluster lies in the file"},
		{"reserved bits of an unallocated cluster", "l2[0][3]", 1 << 8, "entry 3", "bits 1 to 8 are reserved"},
	})
	v2 := Must(Spec{Version: 2, Size: 512, Clusters: map[uint64]Cluster{0: {Form: Normal}}})
	b.patches(WhenRead, "L2 table", v2, []patch{
		{"zero bit in version 2", "l2[0][0]", v2.Field("l2[0][0]") | 1, "entry 0", "version 2 has no zero clusters"},
	})
}

// l2Fields breaks the descriptors of compressed clusters.
func (b *book) l2Fields() {
	img := small()
	c := img.Field("l2[0][1]")
	b.patches(WhenRead, "L2 table", img, []patch{
		{"compressed offset over 56 bits", "l2[0][1]", c | 1<<56, "entry 1", "bits of a compressed offset beyond 55 are zero"},
		{"compressed cluster beyond the end", "l2[0][1]", 1<<62 | 1<<40, "entry 1", "compressed data lies in the file"},
		{"compressed cluster at the highest offset", "l2[0][1]", 1<<62 | (1<<56 - 1), "entry 1", "compressed data lies in the file"},
	})
	b.patches(WhenAny, "L2 table", img, []patch{
		{"compressed cluster with bit 63", "l2[0][1]", c | copied, "entry 1", "bit 63 of a compressed cluster is zero"},
	})
	b.patches(WhenRead, "compressed cluster", img, []patch{
		{"in the header", "l2[0][1]", 1 << 62, "entry 1", "the stream gives one cluster"},
	})
}

func (b *book) subclusters() {
	img := Must(Spec{Size: 6 << 14, ClusterBits: 14, ExtendedL2: true, Clusters: map[uint64]Cluster{
		0: {Form: Normal}, 1: {Form: ZeroPlain}, 2: {Form: Sub, Alloc: 1}, 3: {Form: Packed},
	}})
	data := img.Field("l2[0][0]")
	b.patches(WhenRead, "L2 table", img, []patch{
		{"zero bit with extended entries", "l2[0][0]", data | 1, "entry 0", "extended entries have no zero bit"},
		{"subcluster allocated and zero", "l2[0][2].bitmap", 1<<32 | 1, "entry 2", "a zero subcluster is not allocated"},
		{"last subcluster allocated and zero", "l2[0][2].bitmap", 1<<63 | 1<<31, "entry 2", "a zero subcluster is not allocated"},
		{"allocated subcluster without a host cluster", "l2[0][1].bitmap", 1, "entry 1", "an allocated subcluster has a host cluster"},
		{"extended cluster unaligned", "l2[0][0]", data + 512, "entry 0", "a host cluster is aligned"},
		{"extended cluster beyond the end", "l2[0][2]", copied | 1<<40, "entry 2", "a host cluster lies in the file"},
	})
	b.patches(WhenAny, "L2 table", img, []patch{
		{"bitmap of a compressed cluster", "l2[0][3].bitmap", 1, "entry 3", "compressed clusters have no subclusters"},
	})
}

func (b *book) dataFiles() {
	img := Must(Spec{Size: 8 * 512, DataFile: &DataFile{Name: "d"}, Clusters: map[uint64]Cluster{0: {Form: Normal}, 2: {Form: Normal}}})
	b.patches(WhenRead, "L2 table", img, []patch{
		{"data file: host offset is not the guest offset", "l2[0][2]", copied | 512, "entry 2", "in an external data file host and guest offset are equal"},
		{"data file: compressed cluster", "l2[0][2]", 1<<62 | 1024, "entry 2", "an external data file has no compressed clusters"},
	})
	b.patches(WhenSnapshots, "header", img, []patch{
		{"data file with a snapshot", "header.nb_snapshots", 1, "nb_snapshots", "an image with an external data file has no snapshots"},
	})
	short := Must(Spec{Size: 8 * 512, DataFile: &DataFile{Name: "d"}, Clusters: map[uint64]Cluster{7: {Form: Normal}}})
	short.Data = short.Data[:7*512]
	b.add(WhenRead, "L2 table", short, short.Bytes, patch{
		name: "data file is too short", field: "entry 7", rule: "a host cluster lies in the data file",
	})
}
