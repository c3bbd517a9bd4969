package qcow2

import "encoding/binary"

// A cursor decodes big-endian fields from bytes that are known to be long
// enough. It keeps the offset of the last field for error messages.
type cursor struct {
	b   []byte
	off int
}

func (c *cursor) u16() uint16 {
	v := binary.BigEndian.Uint16(c.b[c.off:])
	c.off += 2
	return v
}

func (c *cursor) u32() uint32 {
	v := binary.BigEndian.Uint32(c.b[c.off:])
	c.off += 4
	return v
}

func (c *cursor) u64() uint64 {
	v := binary.BigEndian.Uint64(c.b[c.off:])
	c.off += 8
	return v
}

func (c *cursor) u8() uint8 {
	v := c.b[c.off]
	c.off++
	return v
}

// alignUp rounds n up to a multiple of align, a power of two.
func alignUp[T int | int64 | uint64 | HostOffset](n, align T) T {
	return (n + align - 1) &^ (align - 1)
}
