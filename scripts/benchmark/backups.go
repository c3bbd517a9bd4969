package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
)

// runBackups times the making of backups, and what else makes or changes images.
func runBackups(s settings) error {
	for _, run := range []func(settings) error{runFull, runPacked, runIncrement, runSquash, runCreate} {
		if err := inFolder(s, run); err != nil {
			return err
		}
	}
	return nil
}

// backupChain is the disk that is backed up and converted: 2 GiB of data.
func backupChain(s settings) chain {
	return chain{size: s.part(8*gib, 64*mib), links: 1, fullData: s.part(2*gib, 16*mib), unit: [2]int64{64 * kib, 4 * mib}}
}

// backup is qbit backup with options, and no documents, which the others do not write.
func (w writers) backup(s settings, disk string, options ...string) *contestant {
	name, args := "qbit backup", []string{s.qbit, "backup", "-q", "--no-xml"}
	for _, o := range options {
		name, args = name+" "+o, append(args, o)
	}
	return w.add(name, append(args, disk, "-o")...)
}

// ourConvert is qbit convert with options.
func (w writers) ourConvert(s settings, format, disk string, options ...string) *contestant {
	name, args := "qbit convert", []string{s.qbit, "convert", "-q"}
	for _, o := range options {
		name, args = name+" "+o, append(args, o)
	}
	return w.add(name, append(args, "-O", format, disk)...)
}

// runFull backs up a whole disk, and converts it.
func runFull(s settings) error {
	c, w := backupChain(s), writers{s.dir}
	links, err := c.build(s.dir)
	if err != nil {
		return err
	}
	disk := links[0]
	r := race{title: "full backup of 2 GiB of data to qcow2", writes: c.data(), same: sameDisk,
		wants: []want{atMost(1, "qemu-img convert -t writeback")},
		runs: []*contestant{w.backup(s, disk), w.ourConvert(s, "qcow2", disk),
			w.convert("qcow2", disk), w.convert("qcow2", disk, "-t", "writeback"), w.convert("qcow2", disk, "-W", "-m", "16", "-C")}}
	if err := r.run(s); err != nil {
		return err
	}
	r = race{title: "convert 2 GiB of data to raw", writes: c.data(), same: sameFile,
		wants: []want{atMost(1, "qemu-img convert -t writeback")},
		runs: []*contestant{w.ourConvert(s, "raw", disk), w.convert("raw", disk), w.convert("raw", disk, "-t", "writeback"),
			w.convert("raw", disk, "-W", "-m", "16", "-C")}}
	return r.run(s)
}

// runPacked makes compressed backups of what compresses as guests' files do.
func runPacked(s settings) error {
	data, w := s.part(512*mib, 8*mib), writers{s.dir}
	raw, disk := filepath.Join(s.dir, "disk.raw"), filepath.Join(s.dir, "disk.qcow2")
	if err := makeDisk(s, raw, data); err != nil {
		return err
	}
	if err := tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk); err != nil {
		return err
	}
	for _, method := range []string{"deflate", "zstd"} {
		kind := "compression_type=" + map[string]string{"deflate": "zlib", "zstd": "zstd"}[method]
		peer, fastest := w.convert("qcow2", disk, "-c", "-o", kind), w.convert("qcow2", disk, "-c", "-o", kind, "-W", "-m", "16")
		for _, p := range []*contestant{peer, fastest} {
			p.rounds, p.limit = 1, s.limit
		}
		found := ""
		r := race{title: "full backup of 512 MiB, compressed with " + method, writes: data, same: sizes(&found),
			wants: []want{timesAsFast(1, "qemu-img")}, runs: []*contestant{w.backup(s, disk, "--compress="+method), peer, fastest}}
		if method == "deflate" {
			r.runs[0] = w.backup(s, disk, "--compress")
		}
		if err := r.run(s); err != nil {
			return err
		}
		if found != "" {
			s.report.say(found)
		}
	}
	return nil
}

// sizes notes how large both make the result, which is the other half of compressing.
func sizes(found *string) func(a, b *contestant) error {
	return func(a, b *contestant) error {
		ours, err := os.Stat(a.output)
		if err != nil {
			return err
		}
		qemu, err := os.Stat(b.output)
		if err != nil {
			return err
		}
		*found = fmt.Sprintf("The result has %s, and that of `qemu-img` %s.", memory(ours.Size()), memory(qemu.Size()))
		return sameDisk(a, b)
	}
}

// runIncrement backs up the hundredth of a disk that a bitmap says has changed. QEMU's
// tools make no increments of a disk that nobody uses: a full backup is beside it.
func runIncrement(s settings) error {
	c, w := backupChain(s), writers{s.dir}
	links, err := c.build(s.dir)
	if err != nil {
		return err
	}
	disk := links[0]
	if err := tool("qemu-img", "bitmap", "--add", disk, "before"); err != nil {
		return err
	}
	c.incData = c.data() / 100
	if err := writeAll(disk, c.scattered(rand.New(rand.NewPCG(8, 9)))); err != nil {
		return err
	}
	inc := w.backup(s, disk, "--since", "before", "--no-backing")
	full := w.convert("qcow2", disk, "-W", "-m", "16", "-C")
	r := race{title: "an increment: the hundredth of 2 GiB that changed", writes: c.data(), runs: []*contestant{inc, full},
		wants: []want{timesAsFast(10, "qemu-img")}}
	return r.run(s)
}

// runSquash puts 30 links together.
func runSquash(s settings) error {
	c := chain{size: s.part(8*gib, 64*mib), links: 30, fullData: s.part(gib, 16*mib), incData: s.part(20*mib, mib), unit: [2]int64{64 * kib, mib}, align: 64 * kib}
	w := writers{s.dir}
	links, err := c.build(s.dir)
	if err != nil {
		return err
	}
	newest := links[len(links)-1]
	own := w.add("qbit squash", append([]string{s.qbit, "squash", "-q"}, append(links, "-o")...)...)
	r := race{title: "squash 30 links, 1.6 GiB of data, to a synthetic full", writes: c.data(), same: sameDisk,
		wants: []want{atMost(1, "qemu-img convert -t writeback")},
		runs:  []*contestant{own, w.convert("qcow2", newest), w.convert("qcow2", newest, "-t", "writeback"), w.convert("qcow2", newest, "-W", "-m", "16", "-C")}}
	return r.run(s)
}

// runCreate makes and changes images: what takes no time, if it is done right.
func runCreate(s settings) error {
	w := writers{s.dir}
	of := func(name, program string) *contestant {
		out := w.out(name)
		return &contestant{name: name, output: out, args: []string{program, "create", "-q", "-f", "qcow2", out, "1T"}}
	}
	r := race{title: "create an image of 1 TiB", runs: []*contestant{of("qbit create", s.qbit), of("qemu-img create", "qemu-img")}}
	if err := r.run(s); err != nil {
		return err
	}
	for _, verb := range []string{"commit", "rebase"} {
		if !hasVerb(s.qbit, verb) {
			continue
		}
		if err := inFolder(s, func(s settings) error { return runOverlay(s, verb) }); err != nil {
			return err
		}
	}
	return nil
}

// runOverlay changes an overlay of 256 MiB, or what it stands on, in copies of both.
func runOverlay(s settings, verb string) error {
	c := chain{size: s.part(4*gib, 64*mib), links: 2, fullData: s.part(512*mib, 16*mib), incData: s.part(256*mib, 8*mib), unit: [2]int64{64 * kib, mib}, align: 64 * kib}
	links, err := c.build(s.dir)
	if err != nil {
		return err
	}
	var runs []*contestant
	for _, program := range []string{s.qbit, "qemu-img"} {
		folder := filepath.Join(s.dir, "of "+filepath.Base(program))
		if err := os.Mkdir(folder, 0o777); err != nil {
			return err
		}
		runs = append(runs, overlayRun(program, verb, folder))
	}
	r := race{title: verb + " an overlay of 256 MiB", writes: 3 * c.incData, runs: runs, same: sameDisk,
		before: func(r *contestant) error { return copyOverlay(filepath.Dir(r.output), links) }}
	return r.run(s)
}

// overlayRun is a command on the copies in a folder. After a commit what is compared is
// the base, and after a rebase the overlay.
func overlayRun(program, verb, folder string) *contestant {
	base, top := filepath.Join(folder, "base.qcow2"), filepath.Join(folder, "top.qcow2")
	r := &contestant{name: filepath.Base(program) + " " + verb, args: []string{program, verb, "-q"}, output: base}
	if verb == "rebase" {
		r.args, r.output = append(r.args, "-b", ""), top
	}
	if filepath.Base(program) != "qemu-img" {
		r.args = append(r.args, "--trust")
	}
	r.args = append(r.args, top)
	return r
}

// copyOverlay copies base and overlay into a folder.
func copyOverlay(folder string, links []string) error {
	base, top := filepath.Join(folder, "base.qcow2"), filepath.Join(folder, "top.qcow2")
	os.Remove(base)
	os.Remove(top)
	if err := copyImage(links[0], base); err != nil {
		return err
	}
	if err := copyImage(links[1], top); err != nil {
		return err
	}
	return tool("qemu-img", "rebase", "-q", "-u", "-b", base, "-F", "qcow2", top)
}

// hasVerb says that a program knows a verb.
func hasVerb(program, verb string) bool { return exec.Command(program, verb, "--help").Run() == nil }
