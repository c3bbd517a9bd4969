// Package libvirt reads and writes the XML documents that libvirt keeps about
// backups, and knows the tree of checkpoints. It never talks to a daemon and
// opens no file.
//
// # Documents
//
// A Checkpoint is a <domaincheckpoint> (formatcheckpoint.html, schema
// domaincheckpoint.rng), a Backup a <domainbackup> (formatbackup.html, schema
// domainbackup.rng), a Domain the disks of a <domain>. What a document holds
// beyond the fields of these types is kept: elements, attributes, namespaces,
// comments and layout come back byte for byte where nothing was changed, and a
// change touches only the tags that it is about.
//
// # Trust
//
// A document is a stranger. Its size, depth, number of nodes and number of
// attributes are bounded (see MaxDocument and the constants beside it), a
// document type declaration is refused so that no entity is ever expanded, and
// nothing that it names is opened. The names of checkpoints fit the pattern of
// the schema: no slash, and no dot in front. All other names, of disks, bitmaps,
// exports and files, are any text at all: never use one as a path below a folder
// of your own, or print it to a terminal, without judging it first.
//
// # Concurrency
//
// Reading a value from many goroutines is safe, Append included; whoever changes
// one must be alone with it.
package libvirt
