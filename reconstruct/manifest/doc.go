// Package manifest is qbit's record of what backups held when they were sealed:
// for each point of each disk the checksum of every chunk of guest content, their
// root, and the sizes and checksums of the files. docs/manifest.md describes the
// document.
//
// [Decode] reads a document that may come from anybody, within [Limits]; nothing
// in a [Manifest] that it returns is out of range. A [View] says which checksum
// each chunk of a point has, through all parents. [Manifest.Encode] writes the
// document, after it has checked what a reader checks.
//
// The checksums of chunks are 64-bit xxHash. They find accidents: rot, a wrong
// base, backups in a wrong order. They stop nobody who wants to deceive.
package manifest
