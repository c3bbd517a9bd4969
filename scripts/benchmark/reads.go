package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// runStartup times what is over at once: nearly all of it is the start of a program.
func runStartup(s settings) error {
	return inFolder(s, func(s settings) error {
		dir := s.dir
		path := filepath.Join(dir, "image.qcow2")
		if err := createImage(path, gib, ""); err != nil {
			return err
		}
		s.rounds = max(s.rounds, 20)
		r := race{title: "info of a small image", wants: []want{within(10 * time.Millisecond)}, runs: []*contestant{
			{name: "qbit info", args: []string{s.qbit, "info", path}},
			{name: "qemu-img info", args: []string{"qemu-img", "info", path}},
		}}
		return r.run(s)
	})
}

// A readCase is a disk that is only read.
type readCase struct {
	settings
	writers
	links  []string
	newest string
	disk   string // the same, raw
}

// runReads times map, info, compare and digest beside their twins.
func runReads(s settings) error {
	return inFolder(s, func(s settings) error {
		dir := s.dir
		folder := filepath.Join(dir, "links")
		if err := os.Mkdir(folder, 0o777); err != nil {
			return err
		}
		links, err := plainChain(s).build(folder)
		if err != nil {
			return err
		}
		c := readCase{settings: s, writers: writers{dir}, links: links, newest: links[len(links)-1], disk: filepath.Join(dir, "disk.raw")}
		if err := tool("qemu-img", "convert", "-O", "raw", c.newest, c.disk); err != nil {
			return err
		}
		for _, r := range []race{c.info(), c.mapping(), c.verify(), c.compare(), c.digest()} {
			if err := r.run(s); err != nil {
				return err
			}
		}
		return runFragmented(s, dir)
	})
}

func (c readCase) info() race {
	return race{title: "info of 20 links", runs: []*contestant{
		{name: "qbit info --backing-chain", args: []string{c.qbit, "info", "--backing-chain", "--trust", c.newest}},
		{name: "qemu-img info --backing-chain", args: []string{"qemu-img", "info", "--backing-chain", c.newest}},
	}}
}

func (c readCase) mapping() race {
	return mapRace("map of a disk in 20 links", c.qbit, c.newest)
}

// verify verifies the chain, which has a folder of its own for that.
func (c readCase) verify() race {
	return *verifyRace(c.settings, "verify 20 links", filepath.Dir(c.newest), c.links)
}

// mapRace maps an image, with all below it; both must print the same.
func mapRace(title, qbit, image string) race {
	ours := []string{qbit, "map", "--trust", "--output=json", image}
	qemu := []string{"qemu-img", "map", "--output=json", image}
	return race{title: title, runs: []*contestant{
		{name: "qbit map --output=json", args: ours}, {name: "qemu-img map --output=json", args: qemu},
	}, same: func(*contestant, *contestant) error { return sameOutput(ours, qemu) }}
}

// sameOutput wants two commands to print the same.
func sameOutput(ours, qemu []string) error {
	a, err := outputSum(ours)
	if err != nil {
		return fmt.Errorf("%.300q: %w", ours, err)
	}
	b, err := outputSum(qemu)
	if err == nil && a != b {
		err = errors.New("the outputs differ")
	}
	return err
}

func (c readCase) compare() race {
	ours := append([]string{c.qbit, "compare", "-q", "raw:" + c.disk}, joined(c.links))
	return race{title: "compare 20 links with the same disk, raw", runs: []*contestant{
		{name: "qbit compare", args: ours},
		{name: "qemu-img compare", args: []string{"qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", c.disk, c.newest}},
		{name: "cmp of the disk and a copy", args: []string{"sh", "-c", `cmp -- "$0" "$0.copy"`, c.disk}},
	}, before: func(r *contestant) error { return c.copyOnce() }}
}

// copyOnce makes the copy that cmp reads.
func (c readCase) copyOnce() error {
	if _, err := os.Stat(c.disk + ".copy"); err == nil {
		return nil
	}
	return tool("cp", "--sparse=always", c.disk, c.disk+".copy")
}

// joined is a chain as one argument.
func joined(links []string) string {
	all := links[0]
	for _, l := range links[1:] {
		all += "+" + l
	}
	return all
}

func (c readCase) digest() race {
	os.Remove(c.disk + ".copy")
	digest := func(kind string) []string {
		return append([]string{c.qbit, "digest", "-q", "--digest", kind}, c.links...)
	}
	convert := c.add("qemu-img convert && sha256sum", "sh", "-c", `qemu-img convert -O raw "$0" "$1" && sha256sum "$1"`, c.newest)
	sum := &contestant{name: "sha256sum of the raw disk", args: []string{"sha256sum", c.disk}, rounds: 1}
	convert.rounds = 1 // both are as long as the disk, and no round differs from another
	return race{title: "sha256 of a disk in 20 links", writes: plainChain(c.settings).data(), runs: []*contestant{
		{name: "qbit digest --digest sha256", args: digest("sha256")},
		{name: "qbit digest --digest xxh64-4m", args: digest("xxh64-4m")},
		convert,
		sum,
	}, same: func(a, b *contestant) error { return sameSum(a, b, convert, c.disk) }}
}

// runFragmented maps a disk of which every other cluster is in use.
func runFragmented(s settings, dir string) error {
	const cluster = 4 * kib
	path := filepath.Join(dir, "fragmented.qcow2")
	n := s.part(64*kib, kib)
	if err := createImage(path, 2*n*cluster, fmt.Sprint("cluster_size=", cluster)); err != nil {
		return err
	}
	if err := touch(path, n, 2*cluster, 0); err != nil {
		return err
	}
	r := mapRace("map of 128 Ki ranges", s.qbit, path)
	return r.run(s)
}

// sameSum wants qbit and sha256sum to find the same digest.
func sameSum(a, b, convert *contestant, disk string) error {
	if b != convert {
		return nil
	}
	ours, err := exec.Command(a.args[0], a.args[1:]...).Output()
	if err != nil {
		return err
	}
	theirs, err := exec.Command("sha256sum", disk).Output()
	if err == nil && !bytes.Contains(ours, theirs[:64]) {
		err = fmt.Errorf("qbit digest says %.200s, and sha256sum %.64s", ours, theirs)
	}
	return err
}
