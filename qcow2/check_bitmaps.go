package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
)

// bitmaps counts the references of the bitmap directory and all below it. Those of a
// stale extension do not count, as for QEMU.
func (c *checker) bitmaps() error {
	if c.img.BitmapsStale() {
		e := findExtension(c.img.extensions, ExtBitmaps)
		if err := c.notice(Finding{Kind: FindBitmapsStale, Structure: "bitmaps extension", Field: "type", Host: e.Host,
			Found: "the autoclear bit is clear", Wanted: "set"}); err != nil {
			return err
		}
		if len(e.Data) == bitmapExtLength {
			return nil
		}
	}
	x, err := c.img.bitmapsExtension()
	if x == nil && err == nil {
		return nil
	}
	if err != nil {
		return c.broken(FindBitmapsExt, "bitmaps extension", 0, err)
	}
	at := place{structure: "bitmaps extension", field: "bitmap_directory_offset", host: x.directoryOffset}
	if err := c.add(x.directoryOffset, int64(x.directorySize), useBitmapDirectory, at); err != nil {
		return err
	}
	return c.bitmapDirectory(x)
}

func (c *checker) bitmapDirectory(x *bitmapsExtension) error {
	names := map[uint64]bool{} // hashes: a directory can have 64 MiB of names
	for b, err := range c.img.EachBitmap() {
		if err == nil {
			err = c.bitmap(&b, names)
		} else {
			err = c.broken(FindBitmapDirectory, "bitmap directory", x.directoryOffset, err)
		}
		if err != nil {
			return err
		}
	}
	return c.ctx.Err()
}

var nameSeed = maphash.MakeSeed()

// bitmap checks an entry of the bitmap directory and counts its references.
func (c *checker) bitmap(b *BitmapInfo, names map[uint64]bool) error {
	hash := maphash.String(nameSeed, b.Name)
	if c.first && names[hash] {
		if err := c.bitmapFinding(FindBitmapName, b, "name", fmt.Sprintf("%q again", b.Name), "a name of its own"); err != nil {
			return err
		}
	}
	names[hash] = true
	if c.first {
		if err := c.bitmapRules(b); err != nil {
			return err
		}
	}
	return c.bitmapTable(b)
}

// bitmapFinding reports what is wrong with a directory entry.
func (c *checker) bitmapFinding(kind FindingKind, b *BitmapInfo, field, found, wanted string) error {
	f := Finding{Kind: kind, Severity: SeverityCorruption, Structure: "bitmap directory",
		Field: fmt.Sprintf("entry %d %s of bitmap %q", b.index, field, b.Name), Host: b.host, Found: found, Wanted: wanted}
	switch kind {
	case FindBitmapInUse, FindBitmapExtra, FindBitmapPadding, FindBitmapTail:
		f.Severity = SeverityNotice
	}
	return c.structural(f)
}

// bitmapRules checks a directory entry.
func (c *checker) bitmapRules(b *BitmapInfo) error {
	var all []error
	say := func(kind FindingKind, field, found, wanted string) {
		all = append(all, c.bitmapFinding(kind, b, field, found, wanted))
	}
	if b.InUse {
		say(FindBitmapInUse, "flags", "in_use", "closed cleanly")
	}
	if reserved := b.Flags &^ bitmapKnownFlags; reserved != 0 {
		say(FindBitmapFlags, "flags", fmt.Sprintf("%#x", b.Flags), "reserved flags of 0")
	}
	if b.Type != bitmapDirtyTracking {
		say(FindBitmapType, "type", fmt.Sprint(b.Type), "1, dirty tracking")
	}
	if len(b.ExtraData) > 0 || b.Flags&BitmapExtraDataCompatible != 0 {
		say(FindBitmapExtra, "extra_data", fmt.Sprintf("%d bytes of extra data, flags %#x", len(b.ExtraData), b.Flags), "none")
	}
	if b.Granularity == 0 {
		say(FindBitmapTable, "granularity_bits", fmt.Sprint(b.granularityBits), "9 to 31")
	}
	if at, value := c.bitmapPadding(b); value != 0 {
		say(FindBitmapPadding, "padding", fmt.Sprintf("%#x at %s", value, at), "0")
	}
	return firstOf(all)
}

func firstOf(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// bitmapPadding is the first byte of an entry's padding that is not zero.
func (c *checker) bitmapPadding(b *BitmapInfo) (HostOffset, byte) {
	n := bitmapEntryLength + len(b.ExtraData) + len(b.Name)
	pad := make([]byte, alignUp(n, 8)-n)
	at := b.host + HostOffset(n)
	got, _ := c.img.r.ReadAt(pad, int64(at)) // the last one's may be missing at the end of the file
	for i, v := range pad[:got] {
		if v != 0 {
			return at + HostOffset(i), v
		}
	}
	return 0, 0
}

// bitmapTable counts the references of a bitmap table.
func (c *checker) bitmapTable(b *BitmapInfo) error {
	wire := int64(-1) // bytes of bits; not known without a granularity
	if b.Granularity != 0 {
		wire = ((c.img.Size()+b.Granularity-1)/b.Granularity + 7) / 8
		if err := c.img.validateBitmapTable(b, wire); err != nil {
			if err := c.wrongBitmapTable(b, err); err != nil {
				return err
			}
		}
	}
	n := int64(b.TableSize) * 8
	if b.TableSize > maxBitmapTable || !c.img.geometry.aligned(b.TableOffset) || !within(b.TableOffset, uint64(n), c.img.size) {
		c.res.Incomplete = true
		if wire < 0 {
			return c.bitmapFinding(FindBitmapTable, b, "bitmap_table_offset", b.TableOffset.String(), "a table in the file")
		}
		return nil
	}
	at := place{structure: "bitmap directory", field: fmt.Sprintf("table of bitmap %q", b.Name), host: b.host}
	if err := c.add(b.TableOffset, n, useBitmapTable, at); err != nil {
		return err
	}
	return c.bitmapEntries(b, wire)
}

// wrongBitmapTable reports that the place or size of a bitmap table breaks a rule.
func (c *checker) wrongBitmapTable(b *BitmapInfo, err error) error {
	rule := err.Error()
	var format *FormatError
	if errors.As(err, &format) {
		rule = format.Msg
	}
	return c.bitmapFinding(FindBitmapTable, b, "bitmap_table", fmt.Sprintf("%d entries at %s", b.TableSize, b.TableOffset), rule)
}

// bitmapEntries counts the references of the entries of a bitmap table.
func (c *checker) bitmapEntries(b *BitmapInfo, wire int64) error {
	entries := int64(b.TableSize)
	at := place{structure: "bitmap table", field: fmt.Sprintf(" of bitmap %q", b.Name)}
	buf := make([]byte, min(entries*8, bitmapTableSliceSize))
	for first := int64(0); first < entries; first += int64(len(buf)) / 8 {
		part := buf[:min(int64(len(buf)), (entries-first)*8)]
		if err := readFull(c.img.r, part, b.TableOffset+HostOffset(first*8)); err != nil {
			return c.unreadable("bitmap table", b.TableOffset, err)
		}
		for i := range int64(len(part)) / 8 {
			e := binary.BigEndian.Uint64(part[i*8:])
			at.entry, at.host = first+i+1, b.TableOffset+HostOffset((first+i)*8)
			if err := c.bitmapEntry(b, wire, e, at); err != nil {
				return err
			}
		}
		if err := c.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// bitmapEntry checks an entry of a bitmap table: section "Bitmap table".
func (c *checker) bitmapEntry(b *BitmapInfo, wire int64, e uint64, at place) error {
	if e == 0 || e == bitmapEntryAllOnes {
		return nil
	}
	g := c.img.geometry
	host := HostOffset(e & entryOffset)
	rule := ""
	switch {
	case e&bitmapEntryReserved != 0 || host != 0 && e&bitmapEntryAllOnes != 0:
		rule = "reserved bits must be zero"
	case !g.aligned(host):
		rule = "the data must be aligned to a cluster"
	case host >= HostOffset(c.img.size):
		rule = "the data must lie in the file"
	}
	if rule != "" {
		c.res.Incomplete = true
		return c.structural(at.finding(FindBitmapEntry, fmt.Sprintf("%#x", e), rule))
	}
	if err := c.add(host, g.ClusterSize(), useBitmapData, at); err != nil {
		return err
	}
	if wire < 0 || !c.first {
		return nil
	}
	return c.bitmapData(b, wire, at.entry-1, host, at)
}

// bitmapData checks that the data of an entry lies in the file, and the bits behind
// the end of the disk.
func (c *checker) bitmapData(b *BitmapInfo, wire int64, i int64, host HostOffset, at place) error {
	size := c.img.geometry.ClusterSize()
	n := min(size, wire-i*size)
	if n <= 0 {
		return nil
	}
	if !within(host, uint64(n), c.img.size) {
		c.res.Incomplete = true
		return c.structural(at.finding(FindBitmapEntry, host.String(), "the data must lie in the file"))
	}
	inside := (c.img.Size()+b.Granularity-1)/b.Granularity - i*size*8
	if inside >= size*8 {
		return nil
	}
	data := make([]byte, size)
	got, err := c.img.r.ReadAt(data, int64(host))
	if int64(got) < n {
		return c.unreadable("bitmap data", host, err)
	}
	if bit := setBehind(data[:got], inside); bit >= 0 {
		f := at.finding(FindBitmapTail, fmt.Sprintf("bit %d is set", i*size*8+bit), "bits of 0 behind the end of the disk")
		return c.notice(f)
	}
	return nil
}

// setBehind is the first bit of data, from bit on, that is set; or -1.
func setBehind(data []byte, bit int64) int64 {
	for ; bit < int64(len(data))*8; bit++ {
		if data[bit/8] == 0 {
			bit |= 7
			continue
		}
		if data[bit/8]>>(bit%8)&1 != 0 {
			return bit
		}
	}
	return -1
}
