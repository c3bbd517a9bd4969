package qcow2_test

import (
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/qbitkit/qbit/testimages/build"
)

// corrupt is an image with a few bytes changed, most of them in metadata, the same
// for a seed each time.
func corrupt(img *build.Image, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 0x636f7272))
	b := slices.Clone(img.Bytes)
	names := slices.DeleteFunc(img.Names(), func(name string) bool {
		return strings.Contains(name, "data[") || strings.Contains(name, "packed[")
	})
	for range 1 + rng.IntN(3) {
		switch rng.IntN(8) {
		case 0: // anywhere
			b[rng.IntN(len(b))] = byte(rng.Uint32())
		case 1: // a run
			at := rng.IntN(len(b))
			for i := at; i < min(at+8, len(b)); i++ {
				b[i] = byte(rng.Uint32())
			}
		case 2: // a cut
			if len(b) > 1024 && rng.IntN(4) == 0 {
				b = b[:len(b)-rng.IntN(len(b)/2)]
			}
		default:
			corruptPlace(b, img.At("%s", names[rng.IntN(len(names))]), rng)
		}
	}
	return b
}

// corruptPlace changes a bit or a byte of a place.
func corruptPlace(b []byte, p build.Place, rng *rand.Rand) {
	if p.Len == 0 || p.End() > int64(len(b)) {
		return
	}
	at := p.Off + rng.Int64N(p.Len)
	if rng.IntN(2) == 0 {
		b[at] ^= 1 << rng.IntN(8)
	} else {
		b[at] = byte(rng.Uint32())
	}
}
