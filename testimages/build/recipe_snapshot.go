package build

func snapshotImage() *Image {
	return Must(Spec{Size: 8 * 512, Clusters: map[uint64]Cluster{0: {Form: Normal}, 3: {Form: Normal}}, Snapshots: []Snapshot{
		{ID: "1", Name: "first", Copy: true, Seconds: 1700000000},
		{ID: "2", Name: "second", Clusters: map[uint64]Cluster{5: {Form: Normal}}},
	}})
}

func (b *book) snapshots() {
	img := snapshotImage()
	b.patches(WhenSnapshots, "header", img, []patch{
		{"nb_snapshots over QEMU's limit", "header.nb_snapshots", 65537, "nb_snapshots", "QEMU's limit: 65536 snapshots"},
		{"nb_snapshots huge", "header.nb_snapshots", 1<<32 - 1, "nb_snapshots", "QEMU's limit: 65536 snapshots"},
		{"snapshots_offset unaligned", "header.snapshots_offset", img.Field("header.snapshots_offset") + 8, "snapshots_offset", "the snapshot table is aligned to a cluster"},
		{"snapshots_offset beyond the end", "header.snapshots_offset", 1 << 40, "snapshots_offset", "the snapshot table lies in the file"},
		{"snapshots_offset overflows", "header.snapshots_offset", 1<<64 - 512, "snapshots_offset", "the snapshot table lies in the file"},
	})
	b.patches(WhenSnapshots, "snapshot table", img, []patch{
		{"more snapshots than entries", "header.nb_snapshots", 65536, "entry 2", "the snapshot table lies in the file, and entries of version 3 have 16 bytes of extra data"},
		{"extra data over QEMU's limit", "snapshot[0].extra_data_size", 1025, "extra_data_size", "QEMU's limit: 1024 bytes of extra data"},
		{"extra data huge", "snapshot[0].extra_data_size", 1<<32 - 1, "extra_data_size", "QEMU's limit: 1024 bytes of extra data"},
		{"extra data too short for version 3", "snapshot[0].extra_data_size", 8, "extra_data_size", "entries of version 3 have 16 bytes of extra data"},
		{"ID beyond the end", "snapshot[1].id_size", 65535, "id_size", "the snapshot table lies in the file"},
		{"name beyond the end", "snapshot[1].name_size", 65535, "name_size", "the snapshot table lies in the file"},
	})
}

func (b *book) snapshotDisks() {
	img := snapshotImage()
	b.patches(WhenSnapshot, "snapshot table", img, []patch{
		{"l1_table_offset unaligned", "snapshot[0].l1_table_offset", 513, "l1_table_offset", "the L1 table is aligned to a cluster"},
		{"l1_table_offset beyond the end", "snapshot[0].l1_table_offset", 1 << 40, "l1_table_offset", "the L1 table lies in the file"},
		{"l1_size huge", "snapshot[0].l1_size", 1<<32 - 1, "l1_size", "QEMU's limit: an L1 table of 32 MiB"},
		{"l1_size claims more than the file has", "snapshot[0].l1_size", 32 << 20 / 8, "l1_size", "the L1 table lies in the file"},
		{"l1_size 0", "snapshot[0].l1_size", 0, "l1_size", "the L1 table describes the whole disk"},
		{"disk size over 63 bits", "snapshot[0].disk_size", 1 << 63, "disk_size", "the L1 table describes the whole disk; no offset is negative"},
		{"disk size beyond the L1 table", "snapshot[0].disk_size", 1 << 40, "disk_size", "the L1 table describes the whole disk"},
	})
	e := img.Field("snapshot[0].l1[0]")
	b.patches(WhenSnapshot, "L1 table", img, []patch{
		{"snapshot: reserved bits", "snapshot[0].l1[0]", e | 1, "entry 0", "bits 0 to 8 are reserved"},
		{"snapshot: L2 table beyond the end", "snapshot[0].l1[0]", 1 << 40, "entry 0", "an L2 table lies in the file"},
	})
	b.patches(WhenAny, "snapshot table", img, []patch{
		{"state beyond all", "snapshot[0].vm_state_size_large", 1<<64 - 1, "vm_state_size", "the state lies in the file"},
		{"two snapshots with one ID", "snapshot[1].id", '1', "id", "IDs are unique"},
	})
	b.patches(WhenSnapshot, "snapshot table", img, []patch{
		{"L1 table in the header", "snapshot[0].l1_table_offset", 0, "l1_table_offset", "the header is no L1 table"},
	})
}
