package virtnbd

import (
	"encoding/binary"
	"math/bits"
)

// The primes of XXH32, the checksum of the LZ4 frame format.
const (
	prime1 uint32 = 2654435761
	prime2 uint32 = 2246822519
	prime3 uint32 = 3266489917
	prime4 uint32 = 668265263
	prime5 uint32 = 374761393
)

// xxh32 is an XXH32 with seed 0, of bytes that come in parts.
type xxh32 struct {
	v    [4]uint32
	n    uint64 // bytes so far
	tail [16]byte
}

func (x *xxh32) reset() {
	p1, p2 := prime1, prime2 // not constants, so that they wrap
	*x = xxh32{v: [4]uint32{p1 + p2, p2, 0, -p1}}
}

func (x *xxh32) write(p []byte) {
	held := int(x.n % 16)
	x.n += uint64(len(p))
	if held > 0 {
		n := copy(x.tail[held:], p)
		if held+n < 16 {
			return
		}
		x.stripes(x.tail[:])
		p = p[n:]
	}
	whole := len(p) &^ 15
	x.stripes(p[:whole])
	copy(x.tail[:], p[whole:])
}

// stripes adds whole stripes of 16 bytes.
func (x *xxh32) stripes(p []byte) {
	v1, v2, v3, v4 := x.v[0], x.v[1], x.v[2], x.v[3]
	for len(p) >= 16 {
		s := p[:16]
		v1 = bits.RotateLeft32(v1+binary.LittleEndian.Uint32(s[0:])*prime2, 13) * prime1
		v2 = bits.RotateLeft32(v2+binary.LittleEndian.Uint32(s[4:])*prime2, 13) * prime1
		v3 = bits.RotateLeft32(v3+binary.LittleEndian.Uint32(s[8:])*prime2, 13) * prime1
		v4 = bits.RotateLeft32(v4+binary.LittleEndian.Uint32(s[12:])*prime2, 13) * prime1
		p = p[16:]
	}
	x.v = [4]uint32{v1, v2, v3, v4}
}

func (x *xxh32) sum() uint32 {
	h := prime5
	if x.n >= 16 {
		h = bits.RotateLeft32(x.v[0], 1) + bits.RotateLeft32(x.v[1], 7) +
			bits.RotateLeft32(x.v[2], 12) + bits.RotateLeft32(x.v[3], 18)
	}
	h += uint32(x.n)
	p := x.tail[:x.n%16]
	for ; len(p) >= 4; p = p[4:] {
		h = bits.RotateLeft32(h+binary.LittleEndian.Uint32(p)*prime3, 17) * prime4
	}
	for _, b := range p {
		h = bits.RotateLeft32(h+uint32(b)*prime5, 11) * prime1
	}
	h = (h ^ h>>15) * prime2
	h = (h ^ h>>13) * prime3
	return h ^ h>>16
}

// checksum is the XXH32 of p.
func checksum(p []byte) uint32 {
	var x xxh32
	x.reset()
	x.write(p)
	return x.sum()
}
