package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/qbitkit/qbit/bitmap"
)

// A commit writes a transaction in four phases with a sync behind each: allocate,
// fill, link, release (docs/crash-safety.md).
type commit struct {
	*session
	tx   *Tx
	edit func(sector []byte) // changes the first sector further, in the link

	gone   []hostRange // of the old directory and of bitmaps that go
	leaked int64

	header      *headerPlan
	newTable    HostOffset // of the refcount table, where it moves
	newClusters int64
	directory   HostOffset
	content     []byte // of the directory
	filled      []placed
}

// A placed is a bitmap of the transaction with the place of its table and data.
type placed struct {
	bits    *bitmap.Bitmap
	table   HostOffset
	entries []uint64
}

// prepare finds out what to write, and writes nothing.
func (c *commit) prepare() error {
	if err := c.survey(); err != nil {
		return err
	}
	return c.plan()
}

// run writes it.
func (c *commit) run() error {
	for _, phase := range []func() error{c.allocatePhase, c.fill} {
		if err := phase(); err != nil {
			c.giveBack()
			return err
		}
	}
	if err := c.link(); err != nil {
		return fmt.Errorf("linking the new bitmaps: %w", err)
	}
	if err := c.release(); err != nil {
		return fmt.Errorf("the bitmaps are written, but giving back the clusters of the old ones failed, which are leaked: %w", err)
	}
	return nil
}

// survey finds out what the bitmaps refer to.
func (c *commit) survey() error {
	kept, err := newClusterSet(c.img.geometry, c.alloc.sizeOr(c.img.size))
	if err != nil {
		return err
	}
	unknown, err := c.surveyBitmaps(kept)
	if err != nil {
		return err
	}
	return c.know(kept, c.gone, unknown)
}

// surveyBitmaps sorts what the old directory refers to into what stays and what
// goes. What cannot be followed keeps its clusters, and since those are not known,
// nothing before the end of the file is allocated.
func (c *commit) surveyBitmaps(kept *bitmap.Bitmap) (unknown bool, err error) {
	if x, err := c.img.bitmapsExtension(); x != nil && err == nil {
		c.gone = append(c.gone, hostRange{x.directoryOffset, int64(x.directorySize)})
	}
	stays := map[uint32]bool{}
	for i := range c.tx.bitmaps {
		if b := &c.tx.bitmaps[i]; b.bits == nil {
			stays[b.info.index] = true
		}
	}
	for i := range c.tx.old {
		info := &c.tx.old[i]
		ranges, err := c.img.bitmapRanges(info)
		if format := new(*FormatError); err != nil && !errors.As(err, format) {
			return false, fmt.Errorf("reading the table of bitmap %q: %w", info.Name, err)
		}
		unknown = unknown || err != nil || info.Type != bitmapDirtyTracking || len(info.ExtraData) > 0
		if !stays[info.index] {
			c.gone = append(c.gone, ranges...)
			continue
		}
		for _, r := range ranges {
			if at, ok := c.x.refs.Next(int64(r.host) &^ (c.img.geometry.ClusterSize() - 1)); ok && at < int64(r.host)+r.n {
				return false, info.fail("bitmap_table_offset", uint64(at), "the bitmap shares a cluster with the refcounts, which are written in place")
			}
			kept.Set(int64(r.host), r.n)
		}
	}
	if c.img.BitmapsStale() && (unknown || c.x.unknown) {
		// What a stale directory names may long belong to something unknown.
		c.gone = nil
	}
	return unknown, nil
}

// plan allocates, in memory, all that will be written.
func (c *commit) plan() error {
	for i := range c.tx.bitmaps {
		b := &c.tx.bitmaps[i]
		if b.bits == nil {
			continue
		}
		p, err := c.planBitmap(b.bits)
		if err != nil {
			return err
		}
		b.info.TableOffset, b.info.TableSize = p.table, uint32(len(p.entries))
		c.filled = append(c.filled, p)
	}
	c.content = encodeDirectory(c.tx.bitmaps)
	if len(c.content) > maxBitmapDirectory {
		return fmt.Errorf("the bitmap directory would have %d bytes, %d are allowed", len(c.content), maxBitmapDirectory)
	}
	var err error
	if len(c.tx.bitmaps) > 0 {
		if c.directory, err = c.alloc.allocate(c.clusters(int64(len(c.content)))); err != nil {
			return err
		}
	}
	if err := c.planHeader(); err != nil {
		return err
	}
	c.newTable, c.newClusters, err = c.alloc.growTable()
	return err
}

// planBitmap allocates the table and data of a bitmap: section "Bitmap table".
func (c *commit) planBitmap(bits *bitmap.Bitmap) (placed, error) {
	cluster := c.img.geometry.ClusterSize()
	p := placed{bits: bits, entries: make([]uint64, c.clusters(bits.WireSize()))}
	for i := range p.entries {
		zero, ones := bits.WireState(int64(i)*cluster, cluster)
		switch {
		case zero:
		case ones:
			p.entries[i] = bitmapEntryAllOnes
		default:
			host, err := c.alloc.allocate(1)
			if err != nil {
				return p, err
			}
			p.entries[i] = uint64(host)
		}
	}
	var err error
	if len(p.entries) > 0 {
		p.table, err = c.alloc.allocate(c.clusters(int64(len(p.entries)) * 8))
	}
	return p, err
}

// allocatePhase is the first phase.
func (c *commit) allocatePhase() error {
	err := c.allocate(c.newTable, c.newClusters)
	c.gone, c.retired = append(c.gone, c.retired...), nil
	if c.newClusters > 0 {
		c.header.setRefTable(c.newTable, uint32(c.newClusters))
	}
	return err
}

// planHeader plans the link.
func (c *commit) planHeader() error {
	var data []byte
	if n := len(c.tx.bitmaps); n > 0 {
		data = binary.BigEndian.AppendUint32(data, uint32(n))
		data = binary.BigEndian.AppendUint32(data, 0)
		data = binary.BigEndian.AppendUint64(data, uint64(len(c.content)))
		data = binary.BigEndian.AppendUint64(data, uint64(c.directory))
	}
	var err error
	if c.header, err = planHeader(c.img, c.first, data); err == nil && c.edit != nil {
		c.header.editSectors(c.edit)
	}
	return err
}

// link is the third phase.
func (c *commit) link() error { return c.header.apply(c.f, c.first[:atomicUnit]) }

// fill is the second phase: data, tables and the directory.
func (c *commit) fill() error {
	for _, p := range c.filled {
		if err := c.fillBitmap(p); err != nil {
			return fmt.Errorf("writing a bitmap: %w", err)
		}
	}
	if len(c.content) > 0 {
		if err := c.write(c.directory, c.padded(c.content)); err != nil {
			return fmt.Errorf("writing the bitmap directory: %w", err)
		}
	}
	if err := c.extend(); err != nil {
		return err
	}
	return c.f.Sync()
}

// padded is b with zeros up to the end of its last cluster.
func (c *commit) padded(b []byte) []byte {
	n := c.clusters(int64(len(b))) << c.img.geometry.ClusterBits
	return append(b[:len(b):len(b)], make([]byte, n-int64(len(b)))...)
}

func (c *commit) fillBitmap(p placed) error {
	cluster := c.img.geometry.ClusterSize()
	buf := make([]byte, 0, cluster)
	table := make([]byte, 0, len(p.entries)*8)
	for i, e := range p.entries {
		table = binary.BigEndian.AppendUint64(table, e)
		if e == 0 || e == bitmapEntryAllOnes {
			continue
		}
		buf = p.bits.AppendWire(buf[:0], int64(i)*cluster, int(cluster))
		if err := c.write(HostOffset(e), buf); err != nil {
			return err
		}
	}
	if len(table) == 0 {
		return nil
	}
	return c.write(p.table, c.padded(table))
}

// release is the fourth phase: the clusters that nothing points at any more.
func (c *commit) release() error {
	done, err := newClusterSet(c.img.geometry, c.img.size)
	if err != nil {
		return err
	}
	size := c.img.geometry.ClusterSize()
	for _, r := range c.gone {
		for at := int64(r.host) &^ (size - 1); at < int64(r.host)+r.n; at += size {
			if done.Test(at) || c.x.used.Test(at) || c.x.refs.Test(at) || c.kept.Test(at) {
				continue
			}
			done.Set(at, size)
			leaked, err := c.releaseCluster(at/size, 0)
			if err != nil {
				return err
			}
			if leaked {
				c.leaked++
			}
		}
	}
	if !c.refs.dirty() {
		return nil
	}
	if err := c.refs.flushBlocks(); err != nil {
		return err
	}
	return c.f.Sync()
}

// encodeDirectory is the section "Bitmap directory".
func encodeDirectory(bitmaps []txBitmap) []byte {
	var b []byte
	for i := range bitmaps {
		info := &bitmaps[i].info
		start := len(b)
		b = binary.BigEndian.AppendUint64(b, uint64(info.TableOffset))
		b = binary.BigEndian.AppendUint32(b, info.TableSize)
		b = binary.BigEndian.AppendUint32(b, info.Flags)
		b = append(b, info.Type, info.granularityBits)
		b = binary.BigEndian.AppendUint16(b, uint16(len(info.Name)))
		b = binary.BigEndian.AppendUint32(b, uint32(len(info.ExtraData)))
		b = append(append(b, info.ExtraData...), info.Name...)
		b = append(b, make([]byte, alignUp(len(b)-start, 8)-(len(b)-start))...)
	}
	return b
}
