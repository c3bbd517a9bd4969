package qemumaker

import "fmt"

// addBitmaps adds persistent bitmaps to the empty image.
func (m *maker) addBitmaps() {
	if m.version2 || !m.chance(3) {
		return
	}
	for i := range 1 + m.IntN(2) {
		name := fmt.Sprintf("bitmap-%d", i)
		args := []string{"bitmap", "--add"}
		if m.chance(2) {
			args = append(args, "-g", fmt.Sprint(512<<m.IntN(12)))
		}
		if m.chance(4) {
			args = append(args, "--disable")
		}
		m.run("qemu-img", append(args, m.file(), name)...)
		m.made.Bitmaps = append(m.made.Bitmaps, name)
	}
}

// changeBitmaps merges, disables or clears once all is written.
func (m *maker) changeBitmaps() {
	n := len(m.made.Bitmaps)
	if n == 0 {
		return
	}
	first := m.made.Bitmaps[0]
	switch m.IntN(4) {
	case 0:
		m.run("qemu-img", "bitmap", "--disable", m.file(), first)
	case 1:
		m.run("qemu-img", "bitmap", "--add", "--merge", first, "--disable", m.file(), "merged")
		m.made.Bitmaps = append(m.made.Bitmaps, "merged")
	case 2:
		m.run("qemu-img", "bitmap", "--clear", m.file(), m.made.Bitmaps[n-1])
	}
}
