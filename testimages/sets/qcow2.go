package sets

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

const (
	qcow2Magic       = 0x514649fb
	extEnd           = 0
	extBackingFormat = 0xe2792aca
)

var be = binary.BigEndian

// rename gives a qcow2 file another backing file as qemu-img rebase -u does: the
// extensions are written anew, with the format among them, and the name right
// after them. An empty name leaves none.
func rename(path, name, format string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, 512)
	if _, err := f.ReadAt(head, 0); err != nil {
		return fmt.Errorf("%s: header: %w", path, err)
	}
	if be.Uint32(head) != qcow2Magic {
		return fmt.Errorf("%s: not qcow2", path)
	}
	cluster := make([]byte, 1<<be.Uint32(head[20:]))
	if _, err := f.ReadAt(cluster, 0); err != nil {
		return fmt.Errorf("%s: first cluster: %w", path, err)
	}
	if err := setBacking(cluster, name, format); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if _, err := f.WriteAt(cluster, 0); err != nil {
		return err
	}
	return f.Close()
}

// setBacking works on the first cluster of an image.
func setBacking(c []byte, name, format string) error {
	start := 72
	if be.Uint32(c[4:]) >= 3 {
		start = int(be.Uint32(c[100:]))
	}
	end := len(c)
	if at := int(be.Uint64(c[8:])); at != 0 {
		end = at
	}
	exts, err := otherExtensions(c[start:end])
	if err != nil {
		return err
	}
	var tail bytes.Buffer
	if name != "" {
		putExtension(&tail, extBackingFormat, []byte(format))
	}
	tail.Write(exts)
	putExtension(&tail, extEnd, nil)
	if start+tail.Len()+len(name) > len(c) {
		return fmt.Errorf("no room for a backing name of %d bytes", len(name))
	}
	at := start + copy(c[start:], tail.Bytes())
	clear(c[at:])
	copy(c[at:], name)
	if name == "" {
		at = 0
	}
	be.PutUint64(c[8:], uint64(at))
	be.PutUint32(c[16:], uint32(len(name)))
	return nil
}

// otherExtensions are all but the backing format and the end, as they stand.
func otherExtensions(b []byte) ([]byte, error) {
	var out []byte
	for len(b) >= 8 {
		kind, n := be.Uint32(b), int(be.Uint32(b[4:]))
		whole := 8 + (n+7)/8*8
		if kind == extEnd {
			return out, nil
		}
		if whole > len(b) {
			break
		}
		if kind != extBackingFormat {
			out = append(out, b[:whole]...)
		}
		b = b[whole:]
	}
	return nil, errors.New("header extensions have no end")
}

func putExtension(w *bytes.Buffer, kind uint32, data []byte) {
	var head [8]byte
	be.PutUint32(head[:], kind)
	be.PutUint32(head[4:], uint32(len(data)))
	w.Write(head[:])
	w.Write(data)
	w.Write(make([]byte, (8-len(data)%8)%8))
}

// A table entry's bits.
const (
	offsetMask = 0x00fffffffffffe00
	zeroFlag   = 1
	compressed = 1 << 62
)

// applyQcow2 lays what a file says over a disk: data and zeroes are written, what
// is absent is left. The disk gets the file's size first. Standard clusters only.
func applyQcow2(disk, file []byte) ([]byte, error) {
	if len(file) < 104 || be.Uint32(file) != qcow2Magic {
		return nil, errors.New("not qcow2")
	}
	size, bits := int(be.Uint64(file[24:])), be.Uint32(file[20:])
	disk = resize(disk, size)
	cluster := 1 << bits
	for at := 0; at < size; at += cluster {
		entry, err := l2Entry(file, at>>bits, bits)
		if err != nil {
			return nil, err
		}
		to := disk[at:min(at+cluster, size)]
		switch host := entry & offsetMask; {
		case entry&compressed != 0:
			return nil, errors.New("compressed clusters are not read here")
		case entry&zeroFlag != 0:
			clear(to)
		case host != 0:
			if host > uint64(len(file)) {
				return nil, fmt.Errorf("cluster at %#x lies beyond the file", host)
			}
			clear(to)
			copy(to, file[host:])
		}
	}
	return disk, nil
}

// l2Entry finds the entry of a guest cluster; 0 where there is no table.
func l2Entry(file []byte, index int, bits uint32) (uint64, error) {
	perTable := 1 << (bits - 3)
	l1 := int(be.Uint64(file[40:])) + index/perTable*8
	if l1+8 > len(file) {
		return 0, errors.New("L1 table lies beyond the file")
	}
	l2 := int(be.Uint64(file[l1:]) & offsetMask)
	if l2 == 0 {
		return 0, nil
	}
	l2 += index % perTable * 8
	if l2+8 > len(file) {
		return 0, errors.New("L2 table lies beyond the file")
	}
	return be.Uint64(file[l2:]), nil
}

// resize cuts a disk or lengthens it with zeroes.
func resize(disk []byte, size int) []byte {
	if size <= len(disk) {
		return disk[:size:size]
	}
	return append(disk[:len(disk):len(disk)], make([]byte, size-len(disk))...)
}
