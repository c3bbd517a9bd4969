package qemumaker

import (
	"errors"
	"fmt"
	"os/exec"
)

// rounds writes in batches, with a snapshot between them.
func (m *maker) rounds() {
	rounds := 1
	if m.canSnapshot() && m.chance(2) {
		rounds += 1 + m.IntN(2)
	}
	crash := m.chance(10)
	for i := range rounds {
		if i > 0 {
			m.snapshot()
		}
		cmds := m.commands(4 + m.IntN(16))
		if i == rounds-1 && crash {
			m.crash(cmds)
			return
		}
		m.batch(cmds)
	}
	if m.canSnapshot() && m.chance(5) {
		m.snapshot()
	}
}

// canSnapshot: with few refcount bits compressed clusters, packed together,
// would count too high.
func (m *maker) canSnapshot() bool { return m.dataFile == "" && m.refcountBits >= 8 }

func (m *maker) snapshot() {
	m.t.Helper()
	name := fmt.Sprintf("snapshot %d", len(m.made.Snapshots)+1)
	m.run("qemu-img", "snapshot", "-q", "-c", name, m.file())
	m.made.Snapshots = append(m.made.Snapshots, name)
}

func ioArgs(file string, cmds []string) []string {
	args := []string{"-f", "qcow2", "-t", "unsafe", "-d", "unmap"}
	for _, c := range cmds {
		args = append(args, "-c", c)
	}
	return append(args, file)
}

// batch runs commands in one qemu-io.
func (m *maker) batch(cmds []string) {
	m.t.Helper()
	m.run("qemu-io", ioArgs(m.file(), cmds)...)
}

// crash runs commands and kills qemu-io before it closes the image.
func (m *maker) crash(cmds []string) {
	m.t.Helper()
	out, err := m.try("qemu-io", ioArgs(m.file(), append(cmds, "flush", "sigraise 9"))...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Exited() {
		m.t.Fatalf("qemu-io was to be killed: %v\n%s", err, out)
	}
	m.made.Crashed = true
}

// commands are n random changes of the disk. Compressed writes come first:
// QEMU 7.2 goes on packing into a cluster that was freed and given to data
// since, which damages the image.
func (m *maker) commands(n int) []string {
	var cmds []string
	for range m.IntN(n/2 + 1) {
		if c := m.compressed(); c != "" {
			cmds = append(cmds, c)
		}
	}
	for len(cmds) < n {
		if m.chance(25) && m.canResize() {
			cmds = append(cmds, m.resize())
			continue
		}
		cmds = append(cmds, m.command())
	}
	return cmds
}

func (m *maker) command() string {
	off, n := m.place()
	m.touch(off, n)
	switch m.IntN(8) {
	case 0:
		return fmt.Sprintf("write -q -z %d %d", off, n)
	case 1:
		return fmt.Sprintf("write -q -z -u %d %d", off, n)
	case 2:
		return fmt.Sprintf("discard -q %d %d", off, n)
	case 3:
		return fmt.Sprintf("write -q -s %s.pattern %d %d", m.name, off, n)
	case 4:
		return fmt.Sprintf("write -q -P 0 %d %d", off, n)
	}
	return fmt.Sprintf("write -q -P %d %d %d", 1+m.IntN(250), off, n)
}

// place chooses a range: bytes, sectors, subclusters or clusters.
func (m *maker) place() (off, n int64) {
	unit := pick(m, 1, 512, 512, 4096, max(512, m.cluster/32), m.cluster, m.cluster, m.cluster)
	off = m.Int64N(m.made.Size) / unit * unit
	n = unit * (1 + m.Int64N(max(1, min(8, 512<<10/unit))))
	if unit == 1 {
		n = 1 + m.Int64N(3*m.cluster)
	}
	return off, min(n, m.made.Size-off)
}

func (m *maker) touch(off, n int64) {
	for k := off / m.cluster; k*m.cluster < off+n; k++ {
		m.touched[k] = true
	}
}

// compressed writes one cluster that nothing was written to before, the only
// kind that QEMU compresses; "" where there is none.
func (m *maker) compressed() string {
	if m.dataFile != "" || m.prealloc {
		return ""
	}
	clusters := roundUp(m.made.Size, m.cluster) / m.cluster
	for range 4 {
		k := m.Int64N(clusters)
		if m.touched[k] {
			continue
		}
		m.touched[k] = true
		n := min(m.cluster, m.made.Size-k*m.cluster)
		if m.chance(2) {
			return fmt.Sprintf("write -q -c -s %s.pattern %d %d", m.name, k*m.cluster, n)
		}
		return fmt.Sprintf("write -q -c -P %d %d %d", m.IntN(250), k*m.cluster, n)
	}
	return ""
}

// canResize: a version 2 image with snapshots keeps its size, as they do not
// record theirs.
func (m *maker) canResize() bool { return !m.version2 || len(m.made.Snapshots) == 0 }

func (m *maker) resize() string {
	old := m.made.Size
	size := max(512, (old*int64(2+m.IntN(6))/4)&^511)
	if m.version2 && m.backing != nil { // cannot hide what a longer backing file holds
		size = min(size, old)
	}
	m.made.Size = size
	for k := min(old, size) / m.cluster; k*m.cluster <= max(old, size); k++ {
		m.touched[k] = true
	}
	mode := ""
	if size > old && m.backing == nil && m.chance(3) {
		mode = "-m " + pick(m, "metadata", "falloc", "full") + " "
	}
	return fmt.Sprintf("truncate %s%d", mode, size)
}
