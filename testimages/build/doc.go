// Package build makes small qcow2 images by hand, sound ones and broken ones.
//
// It knows the format a second time: it shares no code with the reader, so
// that the two cannot agree on a mistake. What it writes is judged by
// qemu-img in this package's own tests.
//
// A [Spec] says what an image is to hold. [Spec.Build] turns it into an
// [Image]: the bytes of the file, a map of where every structure stands in
// them ([Layout]), and the truth about what a reader must find ([View] for the
// active disk and for each snapshot, [BitmapTruth] for each bitmap). With
// 512-byte clusters an image takes a few KiB.
//
//	img := build.Must(build.Spec{
//		Size:     16 * 512,
//		Clusters: map[uint64]build.Cluster{3: {Form: build.Normal}},
//	})
//	broken := img.Patch("header.cluster_bits", 8)
//
// [Recipes] are images with one broken rule each, [Random] makes seeded random
// sound ones. Values are not shared between images; nothing here may be used
// from several goroutines while it is being changed.
package build
