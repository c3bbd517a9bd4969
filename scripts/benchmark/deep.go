package main

import "path/filepath"

// runDeep restores a chain of 200 links, and the same disk from one.
func runDeep(s settings) error {
	c := chainCase{format: "raw", chain: chain{size: s.part(8*gib, 64*mib), links: 200, spread: true,
		fullData: s.part(8*gib/5, 16*mib), unit: [2]int64{64 * kib, mib}, align: 64 * kib}}
	return inFolder(s, func(s settings) error {
		dir := s.dir
		links, err := c.build(dir)
		if err != nil {
			return err
		}
		one := filepath.Join(dir, "one.qcow2")
		if err := tool("qemu-img", "convert", "-O", "qcow2", links[len(links)-1], one); err != nil {
			return err
		}
		const single = "one link: qbit restore"
		w := writers{dir}
		r := race{title: "200 links, 1.6 GiB of data in a disk of 8 GiB", writes: c.data(), same: sameFile,
			note:  "Beside it the same disk in one image, which `qemu-img convert` made of the chain.",
			wants: append(wantsOfPlain(), atMost(1.2, single))}
		r.runs = append(c.contestants(s, dir, links),
			w.add(single, s.qbit, "restore", "-q", "-O", "raw", one, "-o"),
			w.add("one link: qemu-img convert", "qemu-img", "convert", "-O", "raw", one))
		return r.run(s)
	})
}
