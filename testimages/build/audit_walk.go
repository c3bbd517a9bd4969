package build

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
)

const (
	auditOffset = 0x00fffffffffffe00 // of L1, L2 and bitmap table entries
	auditPacked = 1 << 62
)

// walkViews walks the active disk and all snapshots.
func (a *auditor) walkViews() {
	a.walkView("active", a.u64(40), int64(a.u32(36)), true)
	count := a.u32(60)
	if count == 0 {
		return
	}
	off := a.u64(64)
	if off%uint64(a.ClusterSize) != 0 || off >= uint64(a.size) {
		a.problem("the snapshot table at %#x", off)
		return
	}
	rest := a.read(int64(off), min(maxAuditTable, a.size-int64(off)))
	used := int64(0)
	for i := range count {
		n := a.snapshot(i, rest[used:])
		if n == 0 {
			return
		}
		used += n
	}
	a.mark(off, used, UsedBySnapshots)
}

// snapshot walks the snapshot whose table entry begins b and returns the length
// of the entry; 0 where it is none.
func (a *auditor) snapshot(i uint32, b []byte) int64 {
	if len(b) < 40 {
		a.problem("snapshot %d reaches beyond the end of the file", i)
		return 0
	}
	be := binary.BigEndian
	n := 40 + int64(be.Uint32(b[36:])) + int64(be.Uint16(b[12:])) + int64(be.Uint16(b[14:]))
	if n > int64(len(b)) {
		a.problem("snapshot %d reaches beyond the end of the file", i)
		return 0
	}
	_, _ = a.hash.Write(b[:n])
	a.walkView(fmt.Sprint("snapshot ", i), be.Uint64(b), int64(be.Uint32(b[8:])), false)
	return min((n+7)/8*8, int64(len(b)))
}

// walkView walks an L1 table.
func (a *auditor) walkView(name string, off uint64, entries int64, active bool) {
	if entries == 0 {
		return
	}
	l1 := a.table(off, entries*8, UsedByL1)
	_, _ = a.hash.Write(l1)
	for i := int64(0); i*8 < int64(len(l1)); i++ {
		entry := binary.BigEndian.Uint64(l1[i*8:])
		if entry&auditOffset == 0 {
			continue
		}
		l2 := a.tableCluster(entry&auditOffset, UsedByL2)
		if l2 == nil {
			continue
		}
		if active {
			a.wantCopied(name+" L1", i, entry)
		}
		a.walkL2(name+" L2", i, l2, active)
	}
}

func (a *auditor) wantCopied(name string, index int64, entry uint64) {
	if c := entry & auditOffset / uint64(a.ClusterSize); c < uint64(len(a.Clusters)) {
		a.copied = append(a.copied, copiedEntry{c, entry&copied != 0, name, index})
	}
}

func (a *auditor) walkL2(name string, i int64, l2 []byte, active bool) {
	width := 8
	if a.feature(72)&extendedL2 != 0 {
		width = 16
	}
	outside := a.feature(72)&externalData != 0
	if a.entries += len(l2) / width; a.entries > maxAuditEntries {
		a.problem("too many L2 entries")
		return
	}
	_, _ = a.hash.Write(l2)
	for j := 0; j < len(l2); j += width {
		entry := binary.BigEndian.Uint64(l2[j:])
		switch off := entry & auditOffset; {
		case entry&auditPacked != 0:
			a.packed(entry)
		case off == 0 || outside:
		case off%uint64(a.ClusterSize) != 0:
			a.problem("%s: data at %#x", name, off)
		default:
			a.mark(off, 1, UsedByData)
			if active {
				a.wantCopied(name, i*int64(len(l2)/width)+int64(j/width), entry)
			}
		}
	}
}

// packed marks the sectors of a compressed cluster.
func (a *auditor) packed(entry uint64) {
	x := 62 - (a.clusterBits() - 8)
	off := entry & (1<<x - 1)
	sectors := entry&(auditPacked-1)>>x + 1
	a.mark(off, int64(off/512*512+sectors*512-off), UsedByPacked)
}

// walkExtensions finds the header extensions that own clusters.
func (a *auditor) walkExtensions() {
	end := uint64(len(a.header))
	if off := a.u64(8); off != 0 && off < end {
		end = off
	}
	pos := uint64(72)
	if a.v3 {
		pos = uint64(a.u32(100))
	}
	for pos+8 <= end {
		kind, n := a.u32(int(pos)), uint64(a.u32(int(pos)+4))
		if kind == ExtEnd {
			break
		}
		if n > end-pos-8 {
			a.problem("header extension %#x at %#x is too long", kind, pos)
			break
		}
		a.extension(kind, int64(pos), a.header[pos+8:pos+8+n])
		pos += 8 + (n+7)/8*8
	}
	if a.Extension == 0 && a.feature(88)&bitmapsBit != 0 {
		a.problem("the autoclear bit of bitmaps without the extension")
	}
}

func (a *auditor) extension(kind uint32, pos int64, data []byte) {
	switch {
	case kind == ExtEncryption && len(data) == 16:
		a.table(binary.BigEndian.Uint64(data), int64(binary.BigEndian.Uint64(data[8:])), UsedByLUKS)
	case kind == ExtEncryption:
		a.problem("the encryption extension has %d bytes", len(data))
	case kind != ExtBitmaps:
	case a.Extension != 0:
		a.problem("two bitmaps extensions")
	case len(data) != 24:
		a.problem("the bitmaps extension has %d bytes", len(data))
	default:
		a.Extension = pos
		if a.Stale = a.feature(88)&bitmapsBit == 0; !a.Stale {
			a.directory(data)
		}
	}
}

// directory walks the bitmap directory.
func (a *auditor) directory(ext []byte) {
	be := binary.BigEndian
	count, size := be.Uint32(ext), be.Uint64(ext[8:])
	if count == 0 || be.Uint32(ext[4:]) != 0 || size > maxAuditTable {
		a.problem("the bitmaps extension: %d bitmaps, reserved %d, %d bytes", count, be.Uint32(ext[4:]), size)
		return
	}
	dir := a.table(be.Uint64(ext[16:]), int64(size), UsedByBitmapDirectory)
	names := map[string]bool{}
	for i := range count {
		if len(dir) < 24 {
			break
		}
		n := a.bitmap(dir)
		if n == 0 || n > len(dir) {
			a.problem("bitmap %d of the directory", i)
			return
		}
		if name := a.Bitmaps[i].Name; names[name] {
			a.problem("two bitmaps %q", name)
		} else {
			names[name] = true
		}
		dir = dir[n:]
	}
	if len(a.Bitmaps) != int(count) || len(dir) > 0 {
		a.problem("%d bitmaps of %d, %d bytes after them", len(a.Bitmaps), count, len(dir))
	}
}

// bitmap walks the bitmap whose entry begins dir; 0: there is none.
func (a *auditor) bitmap(dir []byte) int {
	be := binary.BigEndian
	name, extra := uint64(be.Uint16(dir[18:])), uint64(be.Uint32(dir[20:]))
	if name == 0 || name > 1023 || 24+name+extra > uint64(len(dir)) {
		return 0
	}
	b := AuditBitmap{Flags: be.Uint32(dir[12:]), Type: dir[16], GranularityBits: dir[17],
		Extra: string(dir[24 : 24+extra]), Name: string(dir[24+extra : 24+extra+name])}
	b.Content = a.bitmapTable(be.Uint64(dir), int64(be.Uint32(dir[8:])))
	a.Bitmaps = append(a.Bitmaps, b)
	return int(24+name+extra+7) / 8 * 8
}

// bitmapTable walks a bitmap table and its data.
func (a *auditor) bitmapTable(off uint64, entries int64) uint64 {
	var content maphash.Hash
	content.SetSeed(auditSeed)
	if entries == 0 {
		return content.Sum64()
	}
	table := a.table(off, entries*8, UsedByBitmapTable)
	for i := 0; i < len(table); i += 8 {
		entry := binary.BigEndian.Uint64(table[i:])
		if a.entries++; a.entries > maxAuditEntries {
			a.problem("too many entries of bitmap tables")
			break
		}
		host := entry & auditOffset
		switch {
		case entry&^(auditOffset|1) != 0 || host != 0 && entry&1 != 0 || host%uint64(a.ClusterSize) != 0:
			a.problem("entry %#x of a bitmap table", entry)
		case host == 0:
			_, _ = content.Write(table[i : i+8])
		default:
			a.mark(host, 1, UsedByBitmapData)
			_ = content.WriteByte(2)
			_, _ = content.Write(a.cluster(host))
		}
	}
	return content.Sum64()
}
