package build

import "fmt"

func (b *builder) maxRefcount() uint64 {
	return 1<<(b.s.RefcountBits-1)<<1 - 1
}

// writeRefcounts writes the refcount table, which stands in the second
// cluster, and its blocks right behind it.
func (b *builder) writeRefcounts() error {
	table := b.cs
	first := table + b.tables*b.cs
	b.lay.note(int64(table), int64(b.tables*b.cs), "refcount_table")
	for i := range min(b.tables*b.cs/8, b.blocks+namedEntries) {
		var entry uint64
		if i < b.blocks {
			entry = first + i*b.cs
			b.lay.note(int64(entry), int64(b.cs), "refcount_block[%d]", i)
		}
		b.put(table+8*i, 8, entry, "refcount_table[%d]", i)
	}
	for i, n := range b.refs {
		if n > b.maxRefcount() {
			return fmt.Errorf("cluster %d is used %d times, more than %d refcount bits hold", i, n, b.s.RefcountBits)
		}
		b.setRefcount(first, uint64(i), n)
	}
	return nil
}

// setRefcount writes entry i of the blocks, which are contiguous. The entries
// of one byte begin with the least significant bit.
func (b *builder) setRefcount(first, i, n uint64) {
	width := uint64(b.s.RefcountBits)
	if width >= 8 {
		putBE(b.buf, Place{int64(first + i*width/8), int64(width / 8)}, n)
		return
	}
	bit := i * width
	b.buf[first+bit/8] |= byte(n << (bit % 8))
}

// SetRefcount sets the refcount of a host cluster in file, a copy of the image
// or the image's own bytes. The number is cut to the width.
func (img *Image) SetRefcount(file []byte, cluster, n uint64) {
	width := uint64(img.Spec.RefcountBits)
	perBlock := img.ClusterSize * 8 / width
	block := img.At("refcount_block[%d]", cluster/perBlock).Off
	bit := cluster % perBlock * width
	if width >= 8 {
		putBE(file, Place{block + int64(bit/8), int64(width / 8)}, n)
		return
	}
	mask := byte(1<<width-1) << (bit % 8)
	at := &file[block+int64(bit/8)]
	*at = *at&^mask | byte(n<<(bit%8))&mask
}
