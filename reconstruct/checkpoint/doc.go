// Package checkpoint knows what checkpoints mean for the images of a disk: which
// dirty bitmap of which image of a chain counts, whether they can be trusted, and
// what changed on the disk since a checkpoint.
//
// A checkpoint is an XML document (package libvirt) and a bitmap in the image of
// every disk that takes part. Nothing keeps the two together but the care of those
// who change them, so that all here begins with a comparison.
//
// # Two designs
//
// Today libvirt gives every checkpoint a bitmap that records until the checkpoint
// is deleted: what changed since a checkpoint is its bitmap alone. In the older
// design only the newest bitmap records; each holds what changed until the next
// checkpoint was made, and what changed since a checkpoint is its bitmap and those
// of all that descend from it. Which design it was, the recording flags show, bitmap
// by bitmap: one chain can have both, where a newer libvirt went on.
//
// # Chains of images
//
// When libvirt takes an external snapshot, it gives the new topmost image a bitmap
// of the same name for every one that records. What changed is the union of all
// that have the name, from the image that was active when the checkpoint was made up
// to the topmost.
package checkpoint
