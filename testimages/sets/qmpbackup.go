package sets

import (
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/qbitkit/qbit/testimages"
)

// qmpbackupSets: stand-alone qcow2 files without backing; only the seconds in
// their names tell the order.
func qmpbackupSets() []Set {
	return []Set{
		qmpbackup("qmpbackup", "twodisks", ""),
		qmpbackup("qmpbackup-flat", "demo", "flat"),
		qmpbackup("qmpbackup-image", "twodisks", "image"),
		qmpbackupMonthly(),
		qmpbackupCopy(),
		qmpbackupRaw(),
	}
}

// The disks of the machine that qmpbackup saves: image file and node name.
func qmpImage(target, ext string) string { return "vm1-" + target + "." + ext }

func qmpNode(target string) string { return "node-" + target }

// qmpFile names the i-th backup of a disk: in a folder of the node, as the tool
// does; of the image; or in none, as with --no-subdir.
func qmpFile(style, level, target, ext, epoch string) string {
	image := qmpImage(target, ext)
	name := level + "-" + epoch + "-" + image
	switch style {
	case "flat":
		return name
	case "image":
		return path.Join(image, name)
	}
	return path.Join(qmpNode(target), name)
}

func qmpLevel(i int) string {
	if i == 0 {
		return "FULL"
	}
	return "INC"
}

func qmpbackup(name, from, style string) Set {
	s := Set{Name: name, Tool: "qmpbackup", Evidence: Implied}
	s.Truth = index(from).truth(99, func(d testimages.ChainDisk, i int) Truth {
		return Truth{Disk: qmpImage(d.Target, "qcow2"), Point: epoch(i), At: day(i), Target: d.Target,
			Files: []string{qmpFile(style, qmpLevel(i), d.Target, "qcow2", epoch(i))}}
	})
	s.parts = func(s *Set, dir string) error {
		if err := s.spread(from, dir, standAlone); err != nil {
			return err
		}
		return s.qmpSidecars(dir, "")
	}
	return s
}

func standAlone(Truth) (name, format string) { return "", "" }

// qmpSidecars are the chain's uuid and what qemu-img said of each image.
func (s *Set) qmpSidecars(dir, sub string) error {
	if err := put(dir, path.Join(sub, "uuid"), "7a4e1f1e-4f0e-4b7b-9f3b-6d1c2f6a9e55"); err != nil {
		return err
	}
	for _, disk := range s.Disks() {
		if err := put(dir, path.Join(sub, disk+".config"), qmpConfig(disk, s.Points(disk)[0].Size)); err != nil {
			return err
		}
	}
	return nil
}

// qmpConfig is the answer of qemu-img info that the tool keeps.
func qmpConfig(image string, size int64) string {
	format, specific := "raw", ""
	if strings.HasSuffix(image, ".qcow2") {
		format = "qcow2"
		specific = `
    "cluster-size": 65536,
    "format-specific": {
        "type": "qcow2",
        "data": {
            "compat": "1.1",
            "compression-type": "zlib",
            "lazy-refcounts": false,
            "refcount-bits": 16,
            "corrupt": false,
            "extended-l2": false
        }
    },`
	}
	return fmt.Sprintf(`{
    "virtual-size": %d,
    "filename": "/srv/vm/%s",%s
    "format": "%s",
    "actual-size": 2363392,
    "dirty-flag": false
}
`, size, image, specific, format)
}

// monthStart is the point at which the second month begins anew with a full.
const monthStart = 4

// qmpbackupMonthly has two months, each a chain of its own with its own uuid.
func qmpbackupMonthly() Set {
	s := Set{Name: "qmpbackup-monthly", Tool: "qmpbackup", Evidence: Implied}
	at := func(i int) time.Time { return day(i + 31 - monthStart) } // the fifth on 1 April
	s.Truth = index("demo").truth(99, func(d testimages.ChainDisk, i int) Truth {
		level, stamp := qmpLevel(i), fmt.Sprint(at(i).Unix())
		if i == monthStart {
			level = "FULL"
		}
		return Truth{Disk: qmpImage(d.Target, "qcow2"), Point: stamp, At: at(i), Target: d.Target,
			Files: []string{path.Join(at(i).Format("2006-01"), qmpFile("", level, d.Target, "qcow2", stamp))}}
	})
	s.Truth[monthStart].Kind, s.Truth[monthStart].Parent = "full", ""
	s.parts = func(s *Set, dir string) error {
		if err := s.spread("demo", dir, standAlone); err != nil {
			return err
		}
		if err := s.flatten(dir, s.Truth[:monthStart+1], s.Truth[monthStart]); err != nil {
			return err
		}
		for _, i := range []int{0, monthStart} {
			if err := s.qmpSidecars(dir, at(i).Format("2006-01")); err != nil {
				return err
			}
		}
		return put(dir, path.Join(at(monthStart).Format("2006-01"), "uuid"), "0b5ce0a4-3c93-4c9c-8f0c-b1b8ad1f4c11")
	}
	return s
}

// copyAt is the point that qmpbackup-copy also holds as a COPY.
const copyAt = 2

// qmpbackupCopy has, beside the chain, a copy of one of its points: full, and no
// link of any chain. It was made half a day after that point.
func qmpbackupCopy() Set {
	s := qmpbackup("qmpbackup-copy", "demo", "")
	chain, lay := s.Truth, s.parts
	c := chain[copyAt]
	c.At = c.At.Add(12 * time.Hour)
	c.Kind, c.Parent, c.Point = "copy", "", fmt.Sprint(c.At.Unix())
	c.Files = []string{qmpFile("", "COPY", "vda", "qcow2", c.Point)}
	s.Truth = append(append([]Truth{}, chain...), c)
	s.parts = func(s *Set, dir string) error {
		without := *s
		without.Truth = chain
		if err := lay(&without, dir); err != nil {
			return err
		}
		return s.flatten(dir, chain[:copyAt+1], c)
	}
	return s
}

// qmpbackupRaw is a raw device: its increments cannot say that a range became zero.
func qmpbackupRaw() Set {
	s := Set{Name: "qmpbackup-raw", Tool: "qmpbackup", Evidence: Implied}
	s.Truth = index("raw").truth(3, func(d testimages.ChainDisk, i int) Truth {
		return Truth{Disk: qmpImage(d.Target, "raw"), Point: epoch(i), At: day(i), Target: d.Target,
			Files: []string{qmpFile("", qmpLevel(i), d.Target, "raw", epoch(i))}}
	})
	s.parts = func(s *Set, dir string) error {
		if err := s.spread("raw", dir, standAlone); err != nil {
			return err
		}
		return s.qmpSidecars(dir, "")
	}
	return s
}
