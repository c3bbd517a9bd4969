// Package reconstruct gives back a disk as it was: from a full backup and the
// increments after it, to a file, a device or a stream.
//
// A [Link] is one backup. [Point] makes a chain of links one [qcow2.Disk]; what
// a chain cannot know is said by [Warnings]. [Copy] moves any disk to a
// [Target] and takes digests on the way; [Compare] finds where two disks differ.
//
// Three states are kept apart everywhere, for a backup that mixes two of them up
// gives back stale bytes: data, zero (which hides what is below) and absent
// (unchanged, which does not).
package reconstruct
