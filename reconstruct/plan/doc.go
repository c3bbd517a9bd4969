// Package plan finds out which backups lie in a folder, which of them belong
// together, and how well that is proven.
//
// Discover looks at every file below a folder, knows what the tools that make
// backups leave there (libvirt, virtnbdbackup, qmpbackup, oVirt, OpenNebula,
// CloudStack, KubeVirt, OADP, chains of backing files), and builds the history
// of each disk: a tree of backups, each with its parent and the evidence for
// it. File times are never evidence.
//
// Three stages follow each other. The scan sees what each file is, by its
// content (item). Each tool turns the items that it knows into members with
// claims: "the parent of this is the backup of checkpoint cp1, says the backup
// XML". The join then resolves the claims of all members of a disk, and says
// what is missing, contradicts, or rests on an assumption alone.
//
// Names that are found in files (members of archives, names of disks, paths in
// XML) are never opened as paths: they are only compared with what the scan has
// seen below the folder.
package plan
