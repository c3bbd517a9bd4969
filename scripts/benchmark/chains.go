package main

import (
	"fmt"
	"path/filepath"
	"time"
)

// A chainCase is a chain that is restored.
type chainCase struct {
	chain
	title  string
	note   string
	format string // of the result
	slow   bool   // qemu-img may take minutes: it runs once, to the limit
	all    bool   // with more options and opponents than the other cases
	wants  []want
}

const (
	restoreName  = "qbit restore"
	noDigestName = restoreName + " --digest none"
	resumeName   = restoreName + " --resume"
	autoName     = "cp --sparse=auto"
)

// plainChain is the chain of many of the cases: 4 GiB of data in 20 links.
func plainChain(s settings) chain {
	return chain{size: s.part(8*gib, 64*mib), links: 20, fullData: s.part(3*gib, 16*mib), incData: s.part(100*mib, mib), unit: [2]int64{64 * kib, 4 * mib}}
}

// wantsOfPlain are the figures wanted of chains without compression.
func wantsOfPlain() []want {
	return []want{atMost(0.8, autoName), timesAsFast(3, "qemu-img")}
}

func runChains(s settings) error {
	return chainCase{title: "8 GiB disk, 4 GiB of data, 20 links", chain: plainChain(s), format: "raw", all: true,
		note:  "`dd` writes as many zeros, from a buffer: what it costs to have one file take so many bytes, whatever they are.",
		wants: append(wantsOfPlain(), atMost(1.1, noDigestName), resumeWant(1.1))}.run(s)
}

func runClusters(s settings) error {
	small := chain{size: s.part(4*gib, 64*mib), links: 10, fullData: s.part(gib/2, 16*mib), incData: s.part(25*mib, mib), unit: [2]int64{16 * kib, mib}}
	for _, c := range []struct{ title, options string }{
		{"clusters of 64 KiB: 4 GiB disk, 0.75 GiB of data, 10 links", "cluster_size=64k"},
		{"clusters of 2 MiB, the same writes", "cluster_size=2M"},
		{"extended L2, clusters of 128 KiB, the same writes", "extended_l2=on,cluster_size=128k"},
	} {
		small.options = c.options
		if err := (chainCase{title: c.title, chain: small, format: "raw", wants: wantsOfPlain()}).run(s); err != nil {
			return err
		}
	}
	return nil
}

// runWide restores to qcow2, for many filesystems have no raw file of that size.
func runWide(s settings) error {
	return chainCase{title: "64 TiB disk, 1 GiB of data, 50 links", format: "qcow2", slow: true, wants: []want{within(2 * time.Second)},
		chain: chain{size: 64 * tib, links: 50, fullData: s.part(900*mib, 16*mib), incData: s.part(2*mib, 256*kib), unit: [2]int64{4 * kib, 256 * kib}}}.run(s)
}

func (c chainCase) run(s settings) error {
	return inFolder(s, func(s settings) error {
		dir := s.dir
		links, err := c.build(dir)
		if err != nil {
			return err
		}
		r := race{title: c.title, note: c.note, runs: c.contestants(s, dir, links), writes: c.data(), same: sameFile, wants: c.wants}
		if c.format != "raw" {
			r.same = sameDisk
		}
		return r.run(s)
	})
}

// writers makes contestants that write a file each.
type writers struct{ dir string }

func (w writers) out(name string) string { return filepath.Join(w.dir, "out of "+name) }

// add is a command whose last argument is what it writes.
func (w writers) add(name string, args ...string) *contestant {
	return &contestant{name: name, args: append(args[:len(args):len(args)], w.out(name)), output: w.out(name)}
}

// convert is qemu-img convert with options.
func (w writers) convert(format, image string, options ...string) *contestant {
	name, args := "qemu-img convert", []string{"qemu-img", "convert"}
	for _, o := range options {
		name, args = name+" "+o, append(args, o)
	}
	return w.add(name, append(args, "-O", format, image)...)
}

// contestants are the commands for a case, qbit first.
func (c chainCase) contestants(s settings, dir string, links []string) []*contestant {
	newest, w := links[len(links)-1], writers{dir}
	restore := append([]string{s.qbit, "restore", "-q", "-O", c.format}, links...)
	own := w.add(restoreName, append(restore, "-o")...)
	if c.slow {
		fastest := w.convert(c.format, newest, "-W", "-m", "16")
		fastest.rounds, fastest.limit = 1, s.limit
		return []*contestant{own, fastest}
	}
	plain, fastest := w.convert(c.format, newest), w.convert(c.format, newest, "-W", "-m", "16", "-C")
	copies := w.copies(own.output)
	if !c.all {
		return []*contestant{own, plain, fastest, copies[0]}
	}
	zeros := []string{"dd", "if=/dev/zero", "bs=1M", fmt.Sprintf("count=%d", c.data()/mib), "status=none"}
	return append([]*contestant{own,
		w.add(noDigestName, append(restore, "--digest", "none", "-o")...),
		w.add(resumeName, append(restore, "--resume", "-o")...),
		plain, w.convert(c.format, newest, "-t", "writeback"), fastest,
		{name: "dd of as many zeros", output: w.out("dd"), args: append(zeros, "of="+w.out("dd")), other: true},
	}, copies...)
}

// copies are the ways of cp to copy a finished disk.
func (w writers) copies(disk string) []*contestant {
	flushed := w.add("cp && sync", "sh", "-c", `cp --sparse=auto -- "$0" "$1" && sync -- "$1"`, disk)
	return []*contestant{
		w.add(autoName, "cp", "--sparse=auto", disk),
		flushed,
	}
}
