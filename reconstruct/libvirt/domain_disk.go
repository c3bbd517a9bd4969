package libvirt

import "slices"

// SetDiskPath makes a file on this host the source of the disk with this target,
// as for a disk that was restored: type becomes file, <source> names path, and
// <driver> the format ("qcow2", "raw"; empty: as it was).
//
// What spoke of the old image goes with it: backing store and mirror, the server,
// pool or device that it lay on with its credentials, slices of it, the external
// data file, and encryption: what is restored is plain (see Encrypted to tell the
// user). So does what libvirt would refuse beside a file: a lun becomes a disk,
// and without the format qcow2 the driver loses its qcow2 settings. All else
// stays: address, serial number, boot order, cache mode, labels.
//
// path must be absolute, as libvirt wants it. A target that there is not gives a
// NotFoundError; a target that two disks have, a FormatError.
func (d *Domain) SetDiskPath(target, path string, format string) error {
	if !absolute(path) {
		return &FormatError{"domain", "domain/devices/disk/source/@file", path, "must be an absolute path"}
	}
	i, err := d.find(target)
	if err != nil {
		return err
	}
	setDiskFile(d.doc.root().child("devices").children("disk")[i], path, format)
	d.Disks = readDomainDisks(d.doc.root())
	return nil
}

// diskDepth is how deep the elements of a disk lie below the document: they stand
// in domain, devices and disk.
const diskDepth = 3

var diskOrder = []string{"driver", "auth", "source", "backingStore", "mirror", "target"}

func setDiskFile(disk *node, path, format string) {
	same := disk.attr("type") == "" || disk.attr("type") == "file"
	disk.putAttr("type", "file", "file")
	disk.removeAll("backingStore", "mirror", "encryption", "auth", "privateData")
	notLun(disk)
	setSource(disk.need("source", diskDepth, diskOrder...), same, path)
	if format != "" {
		setFormat(disk.need("driver", diskDepth, diskOrder...), format)
	}
}

// notLun makes a disk of a lun, which passes commands on to a device.
func notLun(disk *node) {
	if disk.attr("device") == "lun" {
		disk.setAttr("device", "disk")
		disk.dropAttrs("rawio", "sgio")
	}
}

// oldImage are elements of a source that speak of one image, and elsewhere those
// that speak of where it lies when that is no file.
var (
	oldImage  = []string{"encryption", "slices", "dataStore", "privateData"}
	elsewhere = []string{"host", "auth", "reservations", "config", "snapshot", "initiator", "ssl", "cookies",
		"readahead", "timeout", "reconnect", "identity", "knownHosts", "address", "iothreads"}
	elsewhereAttrs = []string{"dev", "dir", "protocol", "name", "pool", "volume", "mode", "tls", "tlsHostname",
		"query", "type", "managed", "namespace", "path"}
)

func setSource(source *node, wasFile bool, path string) {
	source.removeAll(oldImage...)
	source.dropAttrs("fdgroup", "index")
	if !wasFile {
		source.removeAll(elsewhere...)
		source.dropAttrs(elsewhereAttrs...)
	}
	if _, has := source.lookup("file"); !has {
		source.attrs = slices.Insert(source.attrs, 0, attr{name: "file"})
	}
	source.setAttr("file", path)
}

func setFormat(driver *node, format string) {
	driver.setAttr("type", format)
	if format != "qcow2" {
		driver.removeAll("metadata_cache")
		driver.dropAttrs("discard_no_unref")
	}
}
