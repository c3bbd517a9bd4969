// Command benchmark times qbit beside qemu-img and cp and prints a table.
// scripts/bench builds and runs it.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
)

type settings struct {
	qbit   string
	dir    string
	rounds int
	scale  int64 // percent of the full amount of data
}

func main() {
	var s settings
	flag.StringVar(&s.qbit, "qbit", "qbit", "the qbit to measure")
	flag.StringVar(&s.dir, "dir", os.TempDir(), "where images are made; about 12 GiB are needed")
	flag.IntVar(&s.rounds, "rounds", 5, "how often each command runs")
	flag.Int64Var(&s.scale, "scale", 100, "percent of the full amount of data")
	flag.Parse()
	if err := run(s); err != nil {
		fmt.Fprintln(os.Stderr, "benchmark:", err)
		os.Exit(1)
	}
}

func run(s settings) error {
	for _, tool := range []string{"qemu-img", "qemu-io", "cp"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	for _, c := range cases(s) {
		if err := runCase(s, c); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return runBitmaps(s)
}

func runCase(s settings, c benchCase) error {
	dir, err := os.MkdirTemp(s.dir, "qbit-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	links, err := c.build(dir)
	if err != nil {
		return err
	}
	runs := c.contestants(s, dir, links)
	for round := range s.rounds {
		if err := runRound(c, runs, round); err != nil {
			return err
		}
	}
	printTable(fmt.Sprintf("%s (scale %d%%)", c.name, s.scale), runs)
	return nil
}

// runRound runs each command once, every other round in reverse, so that none has
// the better place each time. What the first one wrote stays: the others are
// compared to it, and cp copies it.
func runRound(c benchCase, runs []*contestant, round int) error {
	order := slices.Clone(runs)
	if round%2 == 1 {
		slices.Reverse(order)
	}
	for _, r := range order {
		if r.rounds > 0 && round >= r.rounds {
			continue
		}
		os.Remove(r.output)
		syscall.Sync() // nobody pays for what another left to be stored
		if err := r.measure(); err != nil {
			return err
		}
		if r == runs[0] {
			continue
		}
		if round == 0 {
			if err := c.sameBytes(runs[0], r); err != nil {
				return err
			}
		}
		os.Remove(r.output)
	}
	return nil
}

// sameBytes checks that both wrote the same disk, so that no speed is won by
// being wrong.
func (c benchCase) sameBytes(a, b *contestant) error {
	compare := []string{"cmp"}
	if c.format != "raw" {
		compare = []string{"qemu-img", "compare"}
	}
	compare = append(compare, a.output, b.output)
	if out, err := exec.Command(compare[0], compare[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s and %s wrote different disks: %s", a.name, b.name, out)
	}
	return nil
}

// contestants are the commands for a case, qbit first.
func (c benchCase) contestants(s settings, dir string, links []string) []*contestant {
	newest := links[len(links)-1]
	out := func(name string) string { return filepath.Join(dir, name) }
	add := func(name string, args ...string) *contestant {
		return &contestant{name: name, args: append(args, out(name)), output: out(name)}
	}
	restore := append([]string{s.qbit, "restore", "-q", "-O", c.format}, links...)
	own := add("qbit-restore", append(restore, "-o")...)
	if c.slow {
		convert := add("qemu-img-convert", "qemu-img", "convert", "-O", c.format, newest)
		convert.rounds = 1
		return []*contestant{own, convert}
	}
	return []*contestant{
		own,
		add("qbit-restore-no-digest", append(restore, "--digest", "none", "-o")...),
		add("qemu-img-convert", "qemu-img", "convert", "-O", c.format, newest),
		add("qemu-img-convert-flushed", "qemu-img", "convert", "-t", "writeback", "-O", c.format, newest),
		add("qemu-img-convert-fastest", "qemu-img", "convert", "-W", "-m", "16", "-C", "-O", c.format, newest),
		add("cp-sparse-always", "cp", "--sparse=always", out("qbit-restore")),
	}
}
