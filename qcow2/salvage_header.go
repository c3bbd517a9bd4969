package qcow2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
)

// open opens the image with the header that it has, or with one that is put together
// from what is left.
func (s *Salvaged) open(ctx context.Context, r io.ReaderAt, size int64) error {
	if size > 1<<62 {
		return fmt.Errorf("a file of %d bytes is too large", size)
	}
	s.bad = &tolerantReader{r: r}
	img := &Image{r: r, size: size, limits: s.opts.Limits.WithDefaults()}
	first, err := img.loadHeader()
	if err == nil && img.header.CryptMethod != CryptNone {
		return &UnsupportedError{Feature: "encryption with " + img.header.CryptMethod.String()}
	}
	x := rescue{s: s, ctx: ctx, img: img, first: first, broken: err}
	if !x.usable() {
		if err := x.mend(); err != nil {
			return err
		}
	}
	s.img = img
	s.missesBacking()
	if err := img.assemble(x.first, &Options{OpenRef: s.openRef}); err != nil {
		return err
	}
	return s.setStorage()
}

// missesBacking notes traces of a backing file whose name is lost.
func (s *Salvaged) missesBacking() {
	h := &s.img.header
	format := findExtension(s.img.extensions, ExtBackingFormat)
	if h.BackingFileOffset != 0 || h.BackingFileSize == 0 && format == nil || s.headerLost {
		return
	}
	s.headerLost = true
	s.note("the header has traces of a backing file, and not its name")
}

// openRef opens what the image names, as far as it is wanted.
func (s *Salvaged) openRef(ref Ref) (Disk, error) {
	if ref.Kind == RefBacking && (s.opts.Link || s.opts.NoBacking || s.opts.Below != nil) || s.opts.OpenRef == nil {
		return nil, nil
	}
	return s.opts.OpenRef(ref)
}

// setStorage puts readers that never fail before everything that holds guest data.
func (s *Salvaged) setStorage() error {
	img := s.img
	s.streams = newStreamReader(img)
	if img.dataFile == nil {
		s.storage = s.bad
	} else if img.storage != nil {
		s.storage = &tolerantReader{r: img.storage}
	}
	s.below = img.backing
	if s.opts.Below != nil {
		s.below = s.opts.Below
	}
	if s.below != nil {
		s.badBelow = &tolerantReader{r: s.below}
	}
	return nil
}

// A rescue puts a header together.
type rescue struct {
	s      *Salvaged
	ctx    context.Context
	img    *Image
	first  []byte // the first cluster
	broken error  // what is wrong with the header; nil: it breaks no rule
	h      Header
	bitsOK bool // cluster_bits is known
	tailOK bool // the fields of version 3 make sense
	known  bool // so many fields make sense that the kind of L2 entries is known
	noL1   bool // the L1 table is not known
	// snapshotSize is the size of the disk as of the newest snapshot; 0 where none was
	// found.
	snapshotSize uint64
	finder       *tableFinder
}

// usable reports a header that can be used as it stands.
func (x *rescue) usable() bool {
	o := &x.s.opts
	if x.broken != nil || o.ClusterSize != 0 || o.Size != 0 || o.L1Offset != 0 {
		return false
	}
	h := &x.img.header
	if h.Version == 2 && x.decodeTail(&Header{ClusterBits: h.ClusterBits}) {
		x.broken = headerError("version", 4, 2, "the fields of version 3 are there")
		return false
	}
	good, bad := x.l1Entries(h)
	if bad > 0 && good == 0 {
		x.broken = headerError("l1_table_offset", 40, uint64(h.L1TableOffset), "no entry of the L1 table leads to an L2 table")
		return false
	}
	return true
}

// l1Entries counts the entries of the L1 table that lead to something in the file, and
// those that break the format. Those that lead a little beyond its end are neither.
func (x *rescue) l1Entries(h *Header) (good, bad int64) {
	l := partLoader{img: &Image{r: x.img.r, size: x.img.size, tables: newTableCache(x.img.r, sliceBytes)}}
	g := h.Geometry()
	const perSlice = sliceBytes / 8
	for first := int64(0); first < int64(h.L1Size) && good == 0; first += perSlice {
		at := h.L1TableOffset + HostOffset(first*8)
		if !within(at, 8, x.img.size) {
			break
		}
		part := l.load(at, int(min(perSlice, int64(h.L1Size)-first)))
		for i, word := range part.words {
			switch {
			case part.why(i) == ReasonUnreadable:
				bad++
			case word == 0:
			case checkL1(l1Entry(word), g, x.img.size) == "" && l1Entry(word).offset() != 0:
				good++
			case checkL1(l1Entry(word), g, math.MaxInt64) == "" && uint64(l1Entry(word).offset()) < h.Size+h.Size/2+1<<30:
				// the file may have been cut
			default:
				bad++
			}
		}
	}
	return good, bad
}

// mend puts the header together.
func (x *rescue) mend() error {
	if x.broken != nil {
		x.s.note("the header cannot be used as it is: %v", x.broken)
	}
	x.decode()
	if err := x.findTables(); err != nil {
		return err
	}
	x.loadExtensions()
	if x.h.CryptMethod == CryptAES || x.h.CryptMethod == CryptLUKS && findExtension(x.img.extensions, ExtEncryption) != nil {
		return &UnsupportedError{Feature: "encryption with " + x.h.CryptMethod.String()}
	}
	x.h.CryptMethod = CryptNone
	x.fixSize()
	x.fixRefcounts()
	x.fixCompression()
	if x.noL1 { // every range is lost
		x.h.L1TableOffset, x.h.L1Size = 0, 0
	}
	x.img.header = x.h
	return nil
}

// decode takes what makes sense from the bytes of the header.
func (x *rescue) decode() {
	b := make([]byte, max(headerLengthFull, 1<<minClusterBits))
	x.s.bad.ReadAt(b[:min(int64(len(b)), x.img.size)], 0)
	c := cursor{b: b}
	magicOK := c.u32() == magic
	x.h = decodeHeaderV2(b)
	x.h.HeaderLength, x.h.RefcountOrder = headerLengthV2, 4
	if n := x.s.opts.ClusterSize; n != 0 {
		x.h.ClusterBits = uint32(bits.TrailingZeros64(uint64(n)))
	}
	x.bitsOK = x.h.ClusterBits >= minClusterBits && x.h.ClusterBits <= maxClusterBits
	x.tailOK = x.decodeTail(&x.h)
	x.known = magicOK || x.bitsOK && x.h.Geometry().aligned(x.h.L1TableOffset) && x.h.L1TableOffset != 0 && x.h.Size != 0
	if !x.known {
		x.s.headerLost = true
		x.h = Header{Version: 3, RefcountOrder: 4, HeaderLength: headerLengthV3, ClusterBits: x.h.ClusterBits}
		x.bitsOK = x.s.opts.ClusterSize != 0
		return
	}
	x.fixVersion()
}

// decodeTail decodes the fields of version 3 from the first cluster, and reports that
// they make sense.
func (x *rescue) decodeTail(h *Header) bool {
	b := make([]byte, headerLengthFull)
	x.s.bad.ReadAt(b[:min(int64(len(b)), x.img.size)], 0)
	c := cursor{b: b, off: headerLengthV2}
	h.IncompatibleFeatures, h.CompatibleFeatures, h.AutoclearFeatures = c.u64(), c.u64(), c.u64()
	h.RefcountOrder, h.HeaderLength = c.u32(), c.u32()
	if h.HeaderLength > compressionOffset {
		h.CompressionType = CompressionType(c.u8())
	}
	return h.IncompatibleFeatures&^knownIncompat == 0 && h.RefcountOrder <= 6 && h.HeaderLength >= headerLengthV3 &&
		h.HeaderLength%8 == 0 && h.HeaderLength <= 1<<minClusterBits
}

// fixVersion decides on the version, and on the fields of version 3.
func (x *rescue) fixVersion() {
	h := &x.h
	switch {
	case x.tailOK:
		h.Version = 3
		return
	case h.Version == 2, h.HeaderLength == 0 && h.RefcountOrder == 0:
		h.Version, h.IncompatibleFeatures, h.CompatibleFeatures, h.AutoclearFeatures = 2, 0, 0, 0
		h.HeaderLength, h.RefcountOrder, h.CompressionType = headerLengthV2, 4, CompressionZlib
		return
	}
	h.Version = 3
	if unknown := h.IncompatibleFeatures &^ knownIncompat; unknown != 0 {
		x.s.note("incompatible features %#x are not known: damage, or something that changes what all bytes mean", unknown)
		x.s.doubt = ReasonHeader
		h.IncompatibleFeatures &= knownIncompat
	}
	if h.HeaderLength < headerLengthV3 || h.HeaderLength > 1<<minClusterBits || h.HeaderLength%8 != 0 {
		h.HeaderLength = headerLengthV3
		if h.IncompatibleFeatures&IncompatCompression != 0 {
			h.HeaderLength = headerLengthFull
		}
	}
}

// loadExtensions takes the header extensions as far as they go, and the name of the
// backing file if it can be one.
func (x *rescue) loadExtensions() {
	h := &x.h
	x.first = nil
	if !x.known {
		return
	}
	x.first = make([]byte, min(h.Geometry().ClusterSize(), x.img.size))
	x.s.bad.ReadAt(x.first, 0)
	end := len(x.first)
	if h.BackingFileOffset != 0 && h.validateBackingFile(x.img.size, &x.img.limits) != nil {
		x.s.note("the name of the backing file cannot be read: backing_file_offset is %s, backing_file_size %d", h.BackingFileOffset, h.BackingFileSize)
		x.s.headerLost, h.BackingFileOffset = true, 0
	}
	if h.BackingFileOffset != 0 {
		end = int(min(h.BackingFileOffset, HostOffset(end)))
	}
	exts, err := decodeExtensions(x.first, int(h.HeaderLength), end, &x.img.limits)
	if err != nil {
		x.s.note("the header extensions cannot be read as a whole: %v", err)
	}
	x.img.extensions = exts
}

// fixSize makes the size of the disk and that of the L1 table fit each other.
func (x *rescue) fixSize() {
	h, g := &x.h, x.h.Geometry()
	most := uint64(x.img.limits.L1Bytes) / 8
	if x.s.opts.Size != 0 {
		h.Size = uint64(x.s.opts.Size)
	}
	if h.Size == 0 && x.snapshotSize != 0 {
		h.Size = x.snapshotSize
		x.s.note("the size of the disk is taken to be %d bytes, as the newest snapshot has it", h.Size)
	}
	if h.Size > math.MaxInt64 || g.l1EntriesFor(h.Size) > most || h.Size == 0 && h.L1Size > 0 {
		h.Size = min(uint64(h.L1Size), most) * uint64(g.l2Coverage())
		x.s.note("the size of the disk is not known; it is taken to be %d bytes, which is what the tables can map", h.Size)
	}
	h.L1Size = uint32(min(uint64(h.L1Size), most))
	need := g.l1EntriesFor(h.Size)
	if uint64(h.L1Size) >= need {
		return
	}
	x.s.note("the L1 table has %d entries, and a disk of %d bytes needs %d", h.L1Size, h.Size, need)
	longer := *h
	longer.L1TableOffset += HostOffset(h.L1Size) * 8
	longer.L1Size = uint32(need) - h.L1Size
	if good, bad := x.l1Entries(&longer); x.known && x.s.opts.Size == 0 && h.L1Size > 0 && (good == 0 || bad > 0) {
		h.Size = uint64(h.L1Size) * uint64(g.l2Coverage())
		x.s.note("the size of the disk is taken to be %d bytes, which is what the L1 table can map", h.Size)
		return
	}
	h.L1Size = uint32(need)
}

// fixRefcounts leaves out refcounts that cannot be had.
func (x *rescue) fixRefcounts() {
	h := &x.h
	if h.RefcountOrder > 6 || h.validateRefcounts(x.img.size, &x.img.limits) != nil {
		x.s.note("the refcount table cannot be found")
		h.RefcountOrder, h.RefcountTableOffset, h.RefcountTableClusters = 4, 0, 0
	}
}

// fixCompression finds out by trying how clusters are compressed, where the header does
// not say it without contradiction.
func (x *rescue) fixCompression() {
	h := &x.h
	flagged := h.IncompatibleFeatures&IncompatCompression != 0
	if x.known && flagged == (h.CompressionType != CompressionZlib) && h.CompressionType <= CompressionZstd {
		return
	}
	h.CompressionType = CompressionZlib
	if x.tryCompression(CompressionZstd) > x.tryCompression(CompressionZlib) {
		h.CompressionType = CompressionZstd
		x.s.note("compressed clusters are zstd, as far as could be found out by trying")
	}
}

// maxTries is how many compressed clusters are decoded to find out how.
const maxTries = 16

// tryCompression counts the compressed clusters that a method can decode.
func (x *rescue) tryCompression(method CompressionType) (decoded int) {
	g := x.h.Geometry()
	c := &streamReader{r: x.s.bad, size: x.img.size, geometry: g, method: method, window: x.img.limits.ZstdWindow}
	tries := 0
	x.eachEntry(&x.h, func(e l2Entry) bool {
		if e.compressed() && e.plausible(g, x.img.size) {
			tries++
			c.unpack(e, func(_ []byte, why Reason) {
				if why == "" {
					decoded++
				}
			})
		}
		return tries < maxTries
	})
	return decoded
}

// eachEntry gives the entries of the first L2 tables that the L1 table of h leads to.
func (x *rescue) eachEntry(h *Header, yield func(l2Entry) bool) {
	g := h.Geometry()
	b := make([]byte, 8)
	tables := 0
	word := func(host HostOffset) uint64 {
		x.s.bad.ReadAt(b, int64(host))
		c := cursor{b: b}
		return c.u64()
	}
	buf := make([]byte, min(g.ClusterSize(), sliceBytes))
	for i := range int64(min(h.L1Size, 1<<16)) {
		at := h.L1TableOffset + HostOffset(i*8)
		if !within(at, 8, x.img.size) || tables >= maxTries {
			return
		}
		e := l1Entry(word(at))
		if e == 0 || checkL1(e, g, x.img.size) != "" {
			continue
		}
		tables++
		x.s.bad.ReadAt(buf, int64(e.offset()))
		for c := (cursor{b: buf}); c.off < len(buf); c.off += 8 * int(g.l2EntryWords()-1) {
			if !yield(l2Entry(c.u64())) {
				return
			}
		}
	}
}

// minHosts is how many clusters have to stand at even places for the clusters to be
// twice as large as the header says.
const minHosts = 16

// oddGeometry reports tables that look as if the header said the wrong cluster size or
// kind of L2 entry, although they break few rules.
func (s *Salvaged) oddGeometry() bool {
	x := rescue{s: s, img: s.img}
	g := s.img.geometry
	hosts, n := HostOffset(0), 0
	x.eachEntry(&s.img.header, func(e l2Entry) bool {
		if e != 0 && !e.compressed() && e.plausible(g, s.img.size) && e.offset() != 0 {
			hosts |= e.offset()
			n++
		}
		return true
	})
	if s.img.dataFile == nil && n >= minHosts && hosts&HostOffset(g.ClusterSize()) == 0 {
		return true
	}
	return s.oddEntries()
}

// oddEntries reports L2 entries of the other kind than the header says: every second word
// is an entry, where it should be a subcluster bitmap, or the other way round.
func (s *Salvaged) oddEntries() bool {
	x := rescue{s: s, img: s.img}
	plain := s.img.header
	plain.IncompatibleFeatures &^= IncompatExtendedL2
	g := plain.Geometry()
	i, words, entries, bitmaps := 0, 0, 0, 0
	x.eachEntry(&plain, func(e l2Entry) bool {
		if i++; i%2 == 1 || e == 0 {
			return true
		}
		words++
		sub := subclusterBitmap(e)
		switch {
		case e.plausible(g, s.img.size) && e.copied() && e.offset() != 0:
			entries++
		case s.noEntry(e, g) && sub.allocated()&sub.zero() == 0:
			bitmaps++
		}
		return true
	})
	if s.img.geometry.ExtendedL2 {
		return entries*2 > words
	}
	return g.ClusterBits >= 14 && bitmaps*2 > words
}

// noEntry reports a word that is no standard L2 entry, also of a file that was cut.
func (s *Salvaged) noEntry(e l2Entry, g Geometry) bool {
	if e.compressed() {
		host, _ := e.compressedRange(g)
		return e.copied() || s.target.far(host)
	}
	return checkStandard(e, g, s.img.dataFile != nil) != ""
}

var errNoTables = errors.New("no table was found that could be the L1 table")
