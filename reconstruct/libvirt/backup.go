package libvirt

import "math"

// Modes of a Backup.
const (
	ModePush = "push" // the hypervisor writes the backup into files of its own choice
	ModePull = "pull" // a client reads it from an NBD server
)

// Modes of the backup of one disk.
const (
	DiskFull        = "full"
	DiskIncremental = "incremental"
)

// A Backup is a backup job of a domain (formatbackup.html). Its zero value is a
// new full backup of all disks; what a parsed one holds beyond these fields is
// kept. libvirt tells the document only while the job runs. To copy one, parse
// what it appends.
type Backup struct {
	Mode        string // ModePush or ModePull; empty is push
	Incremental string // the checkpoint that disks are incremental to unless they say otherwise; empty: full
	Server      *BackupServer
	// Disks is what was said of each disk. No disks at all means all that can be
	// written to; in a list, a disk that is left out has no part.
	Disks []BackupDisk

	doc *node
}

// A BackupServer is the NBD server of a pull backup. All but Transport may be any
// text.
type BackupServer struct {
	Transport string // "tcp" (or empty, which is the same), "unix" or "fd"
	Name      string // tcp: the host
	Port      int    // tcp: 0 where the document does not say
	Socket    string // unix: an absolute path
	FDGroup   string // fd: the file descriptors that the client passed
	TLS       string // "yes", "no" or empty
}

// A BackupDisk says what part a disk has in a backup.
type BackupDisk struct {
	Name string // the disk's target (vda); it may be any text
	// Backup is false where the disk has no part: what else its element says
	// means nothing then, is not read, and is kept.
	Backup      bool
	BackupMode  string // DiskFull, DiskIncremental or empty: see Base
	Incremental string // the checkpoint that this disk is incremental to; empty: see Base

	ExportName   string // pull: as written; see ResolvedExportName
	ExportBitmap string // pull: as written; see ResolvedExportBitmap

	Type       string // "file" (or empty, which is the same) or "block": what Target or Scratch is
	DriverType string // format of the target or scratch file; empty: qcow2
	Target     string // push: path of the backup; empty: libvirt chooses; it may be any text
	Scratch    string // pull: path of the file that keeps what is overwritten meanwhile
	// Encryption is the <encryption> element of the target or scratch file, as
	// written; nil for none.
	Encryption []byte

	Index int64  // the number that libvirt gave the target, in its own files; 0 for none
	State string // "running", "complete", "failed", …, in libvirt's own files; else empty

	node *node // where it was read
}

const backupTop = "domainbackup"

// ParseBackup reads a <domainbackup>. Errors are FormatErrors: not XML, beyond a
// bound, or against a rule of libvirt for what a Backup says.
func ParseBackup(b []byte) (*Backup, error) {
	doc, err := parseDocument("backup", backupTop, b)
	if err != nil {
		return nil, err
	}
	f := &fields{structure: "backup"}
	job := readBackup(f, doc.root())
	job.doc = doc
	if f.err != nil {
		return nil, f.err
	}
	return job, nil
}

func readBackup(f *fields, root *node) *Backup {
	b := &Backup{
		Mode:        orElse(f.choice(root, backupTop, "mode", ModePush, ModePull), ModePush),
		Incremental: f.name(root, backupTop, "incremental"),
	}
	if n := f.one(root, backupTop, "server"); n != nil {
		b.Server = readServer(f, n, backupTop+"/server")
		if b.Mode == ModePush {
			f.fail(backupTop+"/server", "", "only a pull backup has a server")
		}
	}
	f.one(root, backupTop, "disks")
	var names []string
	for i, n := range disksOf(root) {
		path := diskPath(backupTop, i)
		d := readBackupDisk(f, n, path, b.Mode)
		if _, err := d.Base(b); err != nil {
			f.fail(path+"/@backupmode", d.BackupMode, noBase)
		}
		b.Disks = append(b.Disks, d)
		names = append(names, d.Name)
	}
	f.distinct(backupTop, names)
	return b
}

func readServer(f *fields, n *node, path string) *BackupServer {
	s := &BackupServer{
		Transport: orElse(f.choice(n, path, "transport", "tcp", "unix", "fd"), "tcp"),
		Name:      n.attr("name"),
		Socket:    n.attr("socket"),
		FDGroup:   n.attr("fdgroup"),
		TLS:       f.choice(n, path, "tls", "yes", "no"),
	}
	if port, has := n.lookup("port"); has {
		s.Port = int(f.number(path+"/@port", port, math.MaxUint16))
	}
	switch s.Transport {
	case "unix":
		f.absolute(path+"/@socket", f.required(n, path, "socket"))
	case "fd":
		f.required(n, path, "fdgroup")
	}
	return s
}

func readBackupDisk(f *fields, n *node, path, mode string) BackupDisk {
	d := BackupDisk{
		Name:   f.required(n, path, "name"),
		Backup: f.choice(n, path, "backup", "yes", "no") != "no",
		node:   n,
	}
	if !d.Backup {
		return d
	}
	d.BackupMode = f.choice(n, path, "backupmode", DiskFull, DiskIncremental)
	d.Incremental = f.nameAttr(n, path, "incremental")
	if d.BackupMode == DiskFull && d.Incremental != "" {
		f.fail(path+"/@incremental", d.Incremental, "a full backup is not incremental to a checkpoint")
	}
	d.ExportName, d.ExportBitmap = n.attr("exportname"), n.attr("exportbitmap")
	d.State = n.attr("state")
	if index, has := n.lookup("index"); has {
		d.Index = f.number(path+"/@index", index, math.MaxUint32)
	}
	d.readStore(f, n, path, mode)
	return d
}

// readStore reads where the disk is backed up to, or its scratch file.
func (d *BackupDisk) readStore(f *fields, n *node, path, mode string) {
	d.Type = orElse(f.choice(n, path, "type", "file", "block"), "file")
	d.DriverType = f.one(n, path, "driver").attr("type")
	name := storeName(mode)
	store := f.one(n, path, name)
	where := store.attr(sourceAttr(d.Type))
	f.absolute(path+"/"+name+"/@"+sourceAttr(d.Type), where)
	if mode == ModePull {
		d.Scratch = where
	} else {
		d.Target = where
	}
	if enc := f.one(store, path+"/"+name, "encryption"); enc != nil {
		d.Encryption = enc.appendTo(nil)
	}
}

// storeName is the element that says where a disk is backed up to, or where its
// scratch file lies.
func storeName(mode string) string {
	if mode == ModePull {
		return "scratch"
	}
	return "target"
}

const noBase = "an incremental backup must name a checkpoint, on the disk or for the whole"

// Base is the checkpoint that the backup of this disk holds the changes since;
// empty for a full one. As libvirt has it: backupmode full is full; incremental,
// on the disk, comes before that of the document b, which counts for every disk
// that does not say full. A disk that has no part has no base. The error is a
// FormatError: backupmode is incremental and no checkpoint is named, or it is none
// of the two. What ParseBackup returned has no such disk.
func (d BackupDisk) Base(b *Backup) (checkpoint string, err error) {
	switch {
	case !d.Backup, d.BackupMode == DiskFull:
		return "", nil
	case d.BackupMode != "" && d.BackupMode != DiskIncremental:
		return "", &FormatError{"backup", backupTop + "/disks/disk/@backupmode", d.BackupMode, "must be full or incremental"}
	case d.Incremental != "":
		return d.Incremental, nil
	case d.BackupMode == DiskIncremental && b.Incremental == "":
		return "", &FormatError{"backup", backupTop + "/disks/disk/@backupmode", d.BackupMode, noBase}
	}
	return b.Incremental, nil
}

// ResolvedExportName is the name of the disk's NBD export in a pull backup: its target
// unless the document says otherwise.
func (d BackupDisk) ResolvedExportName() string { return orElse(d.ExportName, d.Name) }

// ResolvedExportBitmap is the name that the NBD server gives the bitmap of changed
// blocks: backup- and the target unless the document says otherwise.
func (d BackupDisk) ResolvedExportBitmap() string { return orElse(d.ExportBitmap, "backup-"+d.Name) }

// Path is where the disk is backed up to, in a push backup; in a pull backup its
// scratch file.
func (d BackupDisk) Path() string { return orElse(d.Target, d.Scratch) }

// Disk is what the backup says of the disk with this target. ok is false where it
// is not listed: it has no part then, unless no disk is listed at all.
func (b *Backup) Disk(target string) (d BackupDisk, ok bool) {
	for _, d := range b.Disks {
		if d.Name == target {
			return d, true
		}
	}
	return BackupDisk{}, false
}

// Validate says whether what Append writes can be parsed: a backup that was put
// together by hand may break a rule.
func (b *Backup) Validate() error {
	_, err := ParseBackup(b.Append())
	return err
}
