// Command benchmark times qbit beside qemu-img and cp and prints a table.
// scripts/bench builds and runs it.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	flag.StringVar(&s.dir, "dir", os.TempDir(), "where images are made; about 20 GiB are needed")
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
	return nil
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
	runs := contestants(s, dir, links)
	for range s.rounds {
		for _, r := range runs {
			os.Remove(r.output)
			if err := r.measure(); err != nil {
				return err
			}
		}
		if err := sameBytes(runs); err != nil {
			return err
		}
	}
	printTable(c.name, runs)
	return nil
}

// sameBytes checks that all wrote the same disk, so that no speed is won by
// being wrong.
func sameBytes(runs []*contestant) error {
	for _, r := range runs[1:] {
		if out, err := exec.Command("cmp", runs[0].output, r.output).CombinedOutput(); err != nil {
			return fmt.Errorf("%s and %s wrote different disks: %s", runs[0].name, r.name, out)
		}
	}
	return nil
}

func contestants(s settings, dir string, links []string) []*contestant {
	newest := links[len(links)-1]
	out := func(name string) string { return filepath.Join(dir, name+".raw") }
	add := func(name string, args ...string) *contestant {
		return &contestant{name: name, args: append(args, out(name)), output: out(name)}
	}
	restore := append([]string{s.qbit, "restore", "-q"}, links...)
	return []*contestant{
		add("qbit-restore", append(restore, "-o")...),
		add("qemu-img-convert", "qemu-img", "convert", "-O", "raw", newest),
		add("qemu-img-convert-flushed", "qemu-img", "convert", "-t", "writeback", "-O", "raw", newest),
		add("qemu-img-convert-fastest", "qemu-img", "convert", "-W", "-m", "16", "-C", "-O", "raw", newest),
		add("cp-sparse-always", "cp", "--sparse=always", out("qbit-restore")),
	}
}
