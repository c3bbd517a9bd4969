// Package qcow2 reads, maps, checks and changes images in the qcow2 format.
//
// The specification is QEMU's docs/interop/qcow2.txt; section names in this
// package are its headings. Files are named after them.
//
// Everything stands on one walk, [Disk.Extents]: it says for every range of a
// virtual disk whether its bytes are data, zero, compressed or absent, and where
// they are. Nothing that an image names (a backing file, an external data file)
// is opened unless [Options.OpenRef] opens it.
//
// An [Image] can be read from several goroutines at once and cannot change a
// file.
package qcow2
