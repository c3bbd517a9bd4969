package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// runReflink restores on a filesystem that shares blocks: an XFS in a file, which only
// root may mount.
func runReflink(s settings) error {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "benchmark: reflink is left out: only root may mount the filesystem in a file that it needs")
		return nil
	}
	return inFolder(s, func(s settings) (err error) {
		image, folder := filepath.Join(s.dir, "xfs.img"), filepath.Join(s.dir, "xfs")
		err = errors.Join(os.Mkdir(folder, 0o777), tool("truncate", "-s", "40G", image),
			tool("mkfs.xfs", "-q", "-m", "reflink=1", image))
		if err == nil {
			err = tool("mount", "-o", "loop", image, folder)
		}
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, tool("umount", folder)) }()
		s.dir = folder
		return reflinkRaces(s)
	})
}

func reflinkRaces(s settings) error {
	full := chain{size: s.part(8*gib, 64*mib), links: 1, unit: [2]int64{4 * mib, 4 * mib}}
	full.fullData = full.size
	for _, c := range []struct {
		title string
		chain chain
	}{
		{"8 GiB disk, all of it data, one link, on XFS that shares blocks", full},
		{"8 GiB disk, 4 GiB of data, 20 links, on XFS that shares blocks", plainChain(s)},
	} {
		if err := reflinkRace(s, c.title, c.chain); err != nil {
			return err
		}
	}
	return nil
}

func reflinkRace(s settings, title string, c chain) error {
	return inFolder(s, func(s settings) error {
		links, err := c.build(s.dir)
		if err != nil {
			return err
		}
		w := writers{s.dir}
		restore := append([]string{s.qbit, "restore", "-q"}, links...)
		own := w.add(restoreName, append(restore, "-o")...)
		copied := w.add("qbit restore --reflink never", append(restore, "--reflink", "never", "-o")...)
		converted := w.convert("raw", links[len(links)-1], "-W", "-m", "16", "-C")
		copied.rounds, converted.rounds = 1, 1 // they write all of it, to the filesystem and the file that it is in
		r := race{title: title, wants: []want{within(time.Second)}, runs: []*contestant{
			own,
			w.add("qbit restore -O qcow2", append(restore, "-O", "qcow2", "-o")...),
			w.add("qbit restore --digest xxh64-4m", append(restore, "--digest", "xxh64-4m", "-o")...),
			copied,
			converted,
			w.add("cp --reflink=always", "cp", "--reflink=always", own.output),
		}}
		r.same = func(a, b *contestant) error {
			if b == r.runs[1] {
				return sameDisk(a, b)
			}
			return sameFile(a, b)
		}
		return r.run(s)
	})
}
