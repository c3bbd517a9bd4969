package reconstruct

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Names of digests, for CopyOptions.
const (
	// SHA256 is that of the content of the disk, as sha256sum prints it for the
	// raw disk. It goes through every byte in order, holes too.
	SHA256 = "sha256"

	// XXH64 is the plain 64-bit xxHash of the content with seed 0, as xxhsum
	// prints it. It goes through every byte in order, holes too.
	XXH64 = "xxh64"

	// Tree is computed in parallel and costs next to nothing for holes. The
	// content is cut into chunks of ChunkSize bytes (4 MiB), of which the last
	// may be shorter. The digest is the 64-bit xxHash, seed 0, of
	//
	//	xxh64(chunk 0), xxh64(chunk 1), …, size of the disk in bytes
	//
	// where each is a 64-bit number in big-endian order. An empty disk has no
	// chunks. Like all digests it depends on the content alone, not on how it
	// is stored. It finds damage; it is no protection against an attacker.
	Tree = "xxh64-4m"
)

// ChunkSize is the length of the chunks of Tree, and of the pieces in which a
// disk is copied, in bytes.
const ChunkSize = 4 << 20

// DigestNames are the digests that Copy can compute.
func DigestNames() []string { return []string{SHA256, XXH64, Tree} }

// A Digest is a checksum of the content of a disk.
type Digest struct {
	Name string
	Sum  []byte // as it is printed; xxHash in big-endian order
}

func (d Digest) String() string { return d.Name + ":" + hex.EncodeToString(d.Sum) }

// digests are the running checksums of one disk.
type digests struct {
	names  []string
	hashes []hash.Hash // beside names
	plain  []hash.Hash // those that see every byte
	tree   *treeHash   // nil unless asked for
}

func newDigests(names []string, size int64) (*digests, error) {
	d := &digests{}
	for _, name := range names {
		if slices.Contains(d.names, name) {
			return nil, fmt.Errorf("digest %q is asked for twice", name)
		}
		h, err := d.newHash(name, size)
		if err != nil {
			return nil, err
		}
		d.names, d.hashes = append(d.names, name), append(d.hashes, h)
	}
	return d, nil
}

func (d *digests) newHash(name string, size int64) (hash.Hash, error) {
	var h hash.Hash
	switch name {
	case SHA256:
		h = sha256.New()
	case XXH64:
		h = xxhash.New()
	case Tree:
		d.tree = newTreeHash(size)
		return d.tree, nil
	default:
		return nil, fmt.Errorf("unknown digest %q: there are %q", name, DigestNames())
	}
	d.plain = append(d.plain, h)
	return h, nil
}

// sums ends the digests.
func (d *digests) sums() []Digest {
	sums := make([]Digest, len(d.names))
	for i, h := range d.hashes {
		sums[i] = Digest{Name: d.names[i], Sum: h.Sum(nil)}
	}
	return sums
}

// write adds bytes to the plain digests.
func (d *digests) write(p []byte) {
	for _, h := range d.plain {
		h.Write(p)
	}
}

// A treeHash is the root of Tree; what is written to it are hashes of chunks.
type treeHash struct {
	*xxhash.Digest
	size      int64
	zeroRun   [zeroUnit / ChunkSize * 8]byte // hashes of chunks of zeros
	zeroShort uint64                         // the hash of the last chunk, when it is short and zero
}

func newTreeHash(size int64) *treeHash {
	t := &treeHash{Digest: xxhash.New(), size: size, zeroShort: hashZeros(size % ChunkSize)}
	sum := hashZeros(ChunkSize)
	for i := 0; i < len(t.zeroRun); i += 8 {
		binary.BigEndian.PutUint64(t.zeroRun[i:], sum)
	}
	return t
}

func hashZeros(n int64) uint64 {
	h := xxhash.New()
	for n > 0 {
		part := min(n, int64(len(zeros)))
		h.Write(zeros[:part])
		n -= part
	}
	return h.Sum64()
}

// chunk adds the hash of a chunk.
func (t *treeHash) chunk(sum uint64) {
	var b [8]byte
	t.Write(binary.BigEndian.AppendUint64(b[:0], sum))
}

// zero adds the hashes of n bytes of zeros, at most zeroUnit, which begin with a
// chunk and end with one or with the disk.
func (t *treeHash) zero(n int64) {
	t.Write(t.zeroRun[:n/ChunkSize*8])
	if n%ChunkSize != 0 {
		t.chunk(t.zeroShort)
	}
}

// Sum appends the digest. Nothing can be added afterwards.
func (t *treeHash) Sum(b []byte) []byte {
	t.chunk(uint64(t.size))
	return t.Digest.Sum(b)
}
