package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/lima-vm/go-qcow2reader/image/asif"
	"github.com/lima-vm/go-qcow2reader/image/parallels"
	"github.com/lima-vm/go-qcow2reader/image/vdi"
	"github.com/lima-vm/go-qcow2reader/image/vhdx"
	"github.com/lima-vm/go-qcow2reader/image/vmdk"
	"github.com/lima-vm/go-qcow2reader/image/vpc"

	"github.com/qbitkit/qbit/qcow2"
)

const (
	formatQcow2 = "qcow2"
	formatRaw   = "raw"
)

var qcowMagic = []byte("QFI\xfb")

// isQcow2 reports the magic of qcow2, versions 2 and up. A qcow2 of a version
// that is not known is still one: its header says so.
func isQcow2(r io.ReaderAt) (bool, error) {
	head, err := readHead(r)
	if err != nil {
		return false, err
	}
	return bytes.HasPrefix(head, qcowMagic) && binary.BigEndian.Uint32(head[4:]) != 1, nil
}

// readHead is the first 16 bytes; what lies beyond the end of the file is zero.
func readHead(r io.ReaderAt) ([]byte, error) {
	head := make([]byte, 16)
	if _, err := r.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, fmt.Errorf("reading the magic: %w", err)
	}
	return head, nil
}

// A foreignError is an image in a format that is not ours.
type foreignError struct {
	path, format string
}

func (e *foreignError) Error() string {
	return fmt.Sprintf("%s: it is a %s image, not qcow2, and qbit does not read those", escapeName(e.path), e.format)
}

// notQcow2 says what a file without the qcow2 magic is. It is never taken for raw.
func notQcow2(f *imageFile) error {
	if format := foreignFormat(f, f.size); format != "" {
		return &foreignError{f.path, format}
	}
	if f.size == 0 {
		return fmt.Errorf("%s: the file is empty: %w", escapeName(f.path), qcow2.ErrNotQcow2)
	}
	head, err := readHead(f)
	if err != nil {
		return plainError(f.path, err)
	}
	return fmt.Errorf("%s: %w (magic is %#x at host offset 0x0); if it is a raw disk, name it raw:%s (or -f raw)",
		escapeName(f.path), qcow2.ErrNotQcow2, head[:4], escapeName(f.path))
}

// foreignFormat names the format of a disk image that is not qcow2; "": no format
// that has a magic.
func foreignFormat(r io.ReaderAt, size int64) string {
	for name, open := range foreignProbes {
		if open(r) == nil {
			return name
		}
	}
	// A VHD of fixed size has its header at the end.
	if size >= 512 && foreignProbes["vpc"](io.NewSectionReader(r, size-512, 512)) == nil {
		return "vpc"
	}
	head, err := readHead(r)
	if err != nil {
		return ""
	}
	for name, magic := range foreignMagics {
		if bytes.HasPrefix(head, []byte(magic)) {
			return name
		}
	}
	return ""
}

// foreignProbes ask go-qcow2reader's readers one by one. Its own Open takes
// whatever it does not know for raw, and must not be asked.
var foreignProbes = map[string]func(io.ReaderAt) error{
	"asif":      func(r io.ReaderAt) error { _, err := asif.Open(r); return err },
	"parallels": func(r io.ReaderAt) error { _, err := parallels.Open(r); return err },
	"vdi":       func(r io.ReaderAt) error { _, err := vdi.Open(r); return err },
	"vhdx":      func(r io.ReaderAt) error { _, err := vhdx.Open(r); return err },
	"vmdk":      func(r io.ReaderAt) error { _, err := vmdk.Open(r); return err },
	"vpc":       func(r io.ReaderAt) error { _, err := vpc.Open(r); return err },
}

// foreignMagics are formats that go-qcow2reader does not know.
var foreignMagics = map[string]string{
	"qcow (version 1)": "QFI\xfb\x00\x00\x00\x01",
	"qed":              "QED\x00",
	"luks":             "LUKS\xba\xbe",
	"bochs":            "Bochs Virtual HD",
	"vma":              "VMA\x00",
}
