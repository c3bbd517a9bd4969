package main

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/qbitkit/qbit/qcow2"
)

// luksHeaderLength is the length of a LUKS version 1 header with its key slots.
const luksHeaderLength = 592

// encryptInfo is what qemu-img reports of an encrypted image; nil for others. It
// needs no passphrase.
func encryptInfo(l *layer) map[string]any {
	method := l.image.Encryption()
	if method == "" {
		return nil
	}
	info := map[string]any{"format": method}
	if method != "luks" {
		return info
	}
	header, err := luksHeader(l)
	if err == nil {
		err = addLuks(info, header)
	}
	if err != nil {
		info["problem"] = escapeText(err.Error())
	}
	return info
}

// luksHeader reads the LUKS header that the encryption extension points to.
func luksHeader(l *layer) ([]byte, error) {
	for _, e := range l.image.Extensions() {
		if e.Type != qcow2.ExtEncryption {
			continue
		}
		if len(e.Data) < 16 {
			return nil, fmt.Errorf("the encryption header extension has %d bytes, not 16", len(e.Data))
		}
		at, n := binary.BigEndian.Uint64(e.Data), binary.BigEndian.Uint64(e.Data[8:])
		if n < luksHeaderLength || at > uint64(l.file.size) {
			return nil, fmt.Errorf("the encryption header (%d bytes at %#x) cannot be there", n, at)
		}
		header := make([]byte, luksHeaderLength)
		if _, err := l.file.ReadAt(header, int64(at)); err != nil {
			return nil, fmt.Errorf("reading the encryption header: %w", err)
		}
		return header, nil
	}
	return nil, fmt.Errorf("there is no encryption header extension")
}

// addLuks adds the fields of a LUKS version 1 header under qemu-img's names.
func addLuks(info map[string]any, h []byte) error {
	if !bytes.HasPrefix(h, []byte("LUKS\xba\xbe\x00\x01")) {
		return fmt.Errorf("the encryption header begins with %#x, not as LUKS version 1 does", h[:8])
	}
	text := func(off, n int) string {
		s, _, _ := bytes.Cut(h[off:off+n], []byte{0})
		return string(s)
	}
	number := func(off int) int64 { return int64(binary.BigEndian.Uint32(h[off:])) }
	mode, iv, _ := bytes.Cut([]byte(text(40, 32)), []byte("-"))
	iv, ivHash, hashed := bytes.Cut(iv, []byte(":"))
	info["cipher-alg"] = luksCipher(text(8, 32), number(108), string(mode))
	info["cipher-mode"] = string(mode)
	info["ivgen-alg"] = string(iv)
	if hashed {
		info["ivgen-hash-alg"] = string(ivHash)
	}
	info["hash-alg"] = text(72, 32)
	info["payload-offset"] = number(104) * 512
	info["master-key-iters"] = number(164)
	info["uuid"] = text(168, 40)
	info["slots"] = luksSlots(h)
	return nil
}

// luksCipher names a cipher with the length of its key, of which XTS has two.
func luksCipher(name string, keyBytes int64, mode string) string {
	bits := keyBytes * 8
	if mode == "xts" {
		bits /= 2
	}
	return fmt.Sprintf("%s-%d", name, bits)
}

// luksSlots are the eight key slots of 48 bytes.
func luksSlots(h []byte) []map[string]any {
	var slots []map[string]any
	for off := 208; off < luksHeaderLength; off += 48 {
		number := func(at int) int64 { return int64(binary.BigEndian.Uint32(h[off+at:])) }
		slot := map[string]any{"active": number(0) == 0x00ac71f3, "key-offset": number(40) * 512}
		if slot["active"] == true {
			slot["iters"], slot["stripes"] = number(4), number(44)
		}
		slots = append(slots, slot)
	}
	return slots
}
