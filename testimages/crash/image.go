package crash

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
)

// SectorSize is what the disk writes whole or not at all, in bytes.
const SectorSize = 512

// chunkSectors is how many sectors are copied at once when images that share
// them part.
const chunkSectors = 64

// A sum identifies the contents of an image: the sums of its sectors, each with
// its place, combined by exclusive or. Sectors of zeros count as absent.
type sum [2]uint64

func (a sum) xor(b sum) sum { return sum{a[0] ^ b[0], a[1] ^ b[1]} }

// A sector is never changed once it is made; nil is a sector of zeros.
type sector struct {
	data [SectorSize]byte
	sum  sum
}

// newSector is the sector that holds data at its place in the file.
func newSector(index int64, data *[SectorSize]byte) *sector {
	if *data == [SectorSize]byte{} {
		return nil
	}
	var placed [8 + SectorSize]byte
	binary.BigEndian.PutUint64(placed[:], uint64(index))
	copy(placed[8:], data[:])
	h := sha256.Sum256(placed[:])
	return &sector{data: *data, sum: sum{binary.BigEndian.Uint64(h[:]), binary.BigEndian.Uint64(h[8:])}}
}

func (s *sector) sumOf() sum {
	if s == nil {
		return sum{}
	}
	return s.sum
}

// An owner says which image may change a chunk in place.
type owner struct{ _ byte }

type chunk struct {
	owner   *owner
	sectors [chunkSectors]*sector
}

// An image is the contents of a file. Clones share their sectors until they
// change, so that a state costs little however long the file is.
type image struct {
	size   int64
	owner  *owner
	chunks []*chunk // nil: zeros
	sum    sum
}

// clone makes an image that can be changed on its own.
func (m *image) clone() *image {
	m.owner = new(owner) // what m owned is shared from now on
	return &image{size: m.size, owner: new(owner), chunks: append([]*chunk(nil), m.chunks...), sum: m.sum}
}

func (m *image) sector(index int64) *sector {
	c := index / chunkSectors
	if c >= int64(len(m.chunks)) || m.chunks[c] == nil {
		return nil
	}
	return m.chunks[c].sectors[index%chunkSectors]
}

func (m *image) setSector(index int64, s *sector) {
	old := m.sector(index)
	if old == s {
		return
	}
	c := index / chunkSectors
	if n := c + 1 - int64(len(m.chunks)); n > 0 {
		m.chunks = append(m.chunks, make([]*chunk, n)...)
	}
	if m.chunks[c] == nil {
		m.chunks[c] = &chunk{owner: m.owner}
	} else if m.chunks[c].owner != m.owner {
		m.chunks[c] = &chunk{owner: m.owner, sectors: m.chunks[c].sectors}
	}
	m.chunks[c].sectors[index%chunkSectors] = s
	m.sum = m.sum.xor(old.sumOf()).xor(s.sumOf())
}

// resize cuts the image, or makes it longer with zeros.
func (m *image) resize(size int64) {
	m.size = size
	for i := size / SectorSize; i < int64(len(m.chunks))*chunkSectors; i++ {
		s := m.sector(i)
		if s == nil {
			continue
		}
		var kept [SectorSize]byte
		copy(kept[:], s.data[:max(0, min(SectorSize, size-i*SectorSize))])
		m.setSector(i, newSector(i, &kept))
	}
}

// write puts p at off and returns the sectors that it changed, with their places.
func (m *image) write(p []byte, off int64) []placed {
	m.size = max(m.size, off+int64(len(p)))
	var changed []placed
	for len(p) > 0 {
		index, in := off/SectorSize, off%SectorSize
		var data [SectorSize]byte
		if s := m.sector(index); s != nil {
			data = s.data
		}
		n := copy(data[in:], p)
		s := newSector(index, &data)
		m.setSector(index, s)
		changed = append(changed, placed{index: index, sector: s})
		p, off = p[n:], off+int64(n)
	}
	return changed
}

// placed is a sector and where it stands.
type placed struct {
	index  int64
	sector *sector
}

// readAt is io.ReaderAt's.
func (m *image) readAt(p []byte, off int64) (int, error) {
	n := int(max(0, min(int64(len(p)), m.size-off)))
	for done := 0; done < n; {
		at := off + int64(done)
		part := p[done:min(n, done+int(SectorSize-at%SectorSize))]
		if s := m.sector(at / SectorSize); s != nil {
			copy(part, s.data[at%SectorSize:])
		} else {
			clear(part)
		}
		done += len(part)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *image) bytes() []byte {
	b := make([]byte, m.size)
	if _, err := m.readAt(b, 0); err != nil {
		panic(err) // the whole image lies in it
	}
	return b
}
