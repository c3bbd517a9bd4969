package qemumaker

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// options chooses what `qemu-img create` is told.
func (m *maker) options() []string {
	m.version2 = m.chance(5)
	m.cluster = 512 << pick(m, 0, 0, 1, 2, 3, 3, 4, 5, 6, 7, 7, 7, 8, 9, 10, 11, 12)
	m.refcountBits = 16
	o := []string{"compat=0.10"}
	if !m.version2 {
		o = append([]string{"compat=1.1"}, m.version3()...)
	}
	o = append(o, fmt.Sprintf("cluster_size=%d", m.cluster))
	m.chooseSize()
	if !m.raw && m.chance(3) {
		o = append(o, m.chooseBacking()...)
	}
	if m.chance(4) && (m.backing == nil || m.extended) {
		m.prealloc = true
		o = append(o, "preallocation="+pick(m, "metadata", "falloc", "full"))
	}
	return o
}

func (m *maker) version3() []string {
	var o []string
	if m.chance(2) {
		m.refcountBits = 1 << m.IntN(7)
		o = append(o, fmt.Sprintf("refcount_bits=%d", m.refcountBits))
	}
	if m.lazy = m.chance(4); m.lazy {
		o = append(o, "lazy_refcounts=on")
	}
	if m.extended = m.chance(3); m.extended {
		m.cluster = max(m.cluster, 16<<10)
		o = append(o, "extended_l2=on")
	}
	o = append(o, "compression_type="+pick(m, "zlib", "zstd"))
	if m.chance(6) {
		m.dataFile = filepath.Join(m.dir, m.name+".data")
		m.raw = m.chance(2)
		o = append(o, "data_file="+m.dataFile, fmt.Sprintf("data_file_raw=%v", onOff(m.raw)))
		m.made.Files = append(m.made.Files, m.dataFile)
	}
	return o
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// chooseSize takes any size; qemu-img itself rounds it up to a sector.
func (m *maker) chooseSize() {
	limit := max(min(4<<20, 300*m.cluster), 3*m.cluster)
	m.made.Size = 1 + m.Int64N(limit)
	switch m.IntN(3) {
	case 0:
		m.made.Size = roundUp(m.made.Size, m.cluster)
	case 1:
		m.made.Size = roundUp(m.made.Size, 512)
	}
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

// chooseBacking makes a backing file: raw or qcow2, shorter or longer.
func (m *maker) chooseBacking() []string {
	size := max(1, m.made.Size*int64(1+m.IntN(8))/4)
	format := "raw"
	if m.chance(2) {
		format = "qcow2"
		m.backing = m.makeBackingImage(size)
	} else {
		m.backing = m.makeBackingRaw(size)
	}
	m.made.Files = append(m.made.Files, m.backing.Files...)
	name := filepath.Base(m.backing.Path)
	if m.cluster >= 4096 && m.chance(2) { // smaller headers may have no room
		name = m.backing.Path
	}
	return []string{"backing_file=" + name, "backing_fmt=" + format}
}

func (m *maker) makeBackingRaw(size int64) *Made {
	path := filepath.Join(m.dir, m.name+"-base.raw")
	b := make([]byte, size)
	for off := int64(0); off < size; {
		n := min(size-off, 1+m.Int64N(100<<10))
		if !m.chance(3) {
			fill(b[off:off+n], byte(1+m.IntN(250)))
		}
		off += n
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		m.t.Fatal(err)
	}
	return &Made{Path: path, Files: []string{path}, Size: size}
}

func fill(b []byte, v byte) {
	for i := range b {
		b[i] = v
	}
}

func (m *maker) makeBackingImage(size int64) *Made {
	base := newMaker(m.t, m.dir, m.name+"-base", rand.New(rand.NewPCG(m.Uint64(), 0)))
	base.log = m.log
	base.cluster = 512 << base.IntN(9)
	base.refcountBits = 16
	base.made.Size = max(size, 1)
	base.version2 = base.chance(3)
	o := []string{fmt.Sprintf("cluster_size=%d", base.cluster), "compat=" + compat(base.version2)}
	pattern := base.writePattern()
	defer os.Remove(pattern)
	base.create(o)
	base.batch(base.commands(4 + base.IntN(6)))
	m.log = base.log
	return &base.made
}

func compat(version2 bool) string {
	if version2 {
		return "0.10"
	}
	return "1.1"
}

func (m *maker) create(options []string) {
	m.t.Helper()
	m.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", strings.Join(options, ","), m.file(), fmt.Sprint(m.made.Size))
	m.made.Size = roundUp(m.made.Size, 512)
}
