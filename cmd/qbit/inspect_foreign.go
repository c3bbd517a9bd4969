package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/qbitkit/qbit/qcow2"
)

// judgeForeign judges a file that is not qcow2. None of them can be accepted, since
// what they name and claim is not known to us.
func (in *inspection) judgeForeign() error {
	r := in.report
	r.Format = foreignFormat(in.file, in.file.size)
	head := make([]byte, 512)
	if _, err := in.file.ReadAt(head, 0); err != nil && err != io.EOF {
		return err
	}
	switch {
	case r.Format == "":
		r.Format = "unknown"
		r.add(ruleNotQcow2, "it has no magic that is known; a host that takes it for raw lets the guest write any magic into it, and reads that the next time")
		return nil
	case bytes.HasPrefix(head, []byte("QFI\xfb\x00\x00\x00\x01")):
		in.judgeQcow1(head)
	default:
		in.judgeOldDrivers(head)
	}
	r.add(ruleNotQcow2, "it is a %s image, and what that names and claims is not looked at", r.Format)
	return nil
}

// judgeQcow1 judges the two fields of qcow version 1 that QEMU before 1.7.2 did not
// check, and the backing file.
func (in *inspection) judgeQcow1(head []byte) {
	be := binary.BigEndian
	at, n := be.Uint64(head[8:]), int64(be.Uint32(head[16:]))
	size, clusterBits, l2Bits := be.Uint64(head[24:]), head[32], head[33]
	broken := func(cve, format string, args ...any) {
		rule := ruleBroken
		rule.cves = []string{cve}
		in.report.add(rule, format, args...)
	}
	if l2Bits < 6 || l2Bits > 13 {
		broken("CVE-2014-0222", "l2_bits of the qcow version 1 header is %d: an L2 table has 512 to 65536 bytes", l2Bits)
	}
	if shift := uint64(clusterBits) + uint64(l2Bits); shift > 63 || size>>min(shift, 63) > 1<<28 {
		broken("CVE-2014-0223", "size of the qcow version 1 header is %d: the L1 table would not fit into memory", size)
	}
	if at == 0 {
		return
	}
	name := make([]byte, min(n, 1023))
	got, _ := in.file.ReadAt(name, int64(min(at, uint64(in.file.size))))
	ref := &qcow2.Ref{Kind: qcow2.RefBacking, Name: string(name[:got])}
	in.addName(ref)
	in.report.add(ruleBacking, "whoever opens the image reads the file that it names, and gives its content to the guest")
	in.judgeName(ref)
}

// judgeOldDrivers judges the fields of other formats by which QEMU divided.
func (in *inspection) judgeOldDrivers(head []byte) {
	for _, field := range []struct {
		magic, name string
		at          int
	}{
		{"WithoutFreeSpace", "tracks", 28}, {"WithouFreSpacExt", "tracks", 28}, {"Bochs Virtual HD", "extent_size", 80},
	} {
		if bytes.HasPrefix(head, []byte(field.magic)) && binary.LittleEndian.Uint32(head[field.at:]) == 0 {
			rule := ruleBroken
			rule.cves = []string{"CVE-2014-0142"}
			in.report.add(rule, "%s of the %s header is 0, and QEMU before 2.0 divided by it", field.name, in.report.Format)
		}
	}
}

// A signature is what other programs look for in a file of another format. An offset
// below 0 counts from the end of the file.
type signature struct {
	format string
	at     int64
	magic  string
}

var signatures = []signature{
	{"vdi", 64, "\x7f\x10\xda\xbe"},
	{"MBR partition table", 510, "\x55\xaa"},
	{"GPT", 512, "EFI PART"},
	{"GPT", 4096, "EFI PART"},
	{"tar", 257, "ustar"},
	{"ISO 9660", 0x8001, "CD001"},
	{"dmg", -512, "koly"},
	{"vpc", -512, "conectix"},
}

// judgeSignatures looks for signatures of other formats. In the first cluster, where
// the header is, none can be the guest's data; behind it one can be by chance.
func (in *inspection) judgeSignatures(img *qcow2.Image) error {
	for _, s := range signatures {
		at := s.at
		if at < 0 {
			at += in.file.size
		}
		found := make([]byte, len(s.magic))
		if n, err := in.file.ReadAt(found, max(at, 0)); n < len(found) {
			if err != io.EOF {
				return fmt.Errorf("reading at %#x: %w", at, err)
			}
			continue
		}
		if at < 0 || string(found) != s.magic {
			continue
		}
		rule := ruleTwoFormats
		if at >= img.Geometry().ClusterSize() {
			rule = rule.note()
		}
		in.report.add(rule, "it also has the signature of %s at offset %#x: programs that guess can take it for that", s.format, at)
	}
	return nil
}
