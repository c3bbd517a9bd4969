// Peers restores mutated sets of backups with the tools that made them, and prints
// a table of what they did, for docs/peers.md. See scripts/peers.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/qbitkit/qbit/testimages/sets"
)

// A trial is one set after one mutation.
type trial struct {
	set      string
	mutation string // "" for none
	times    times
}

// times are the files' times when the tool comes to restore.
type times int

const (
	kept     times = iota // as they were written
	copied                // all the same, as after a copy that does not keep them
	reversed              // the full first, then the increments backwards
)

var virtnbd = []trial{
	{"virtnbd-plain", "", kept}, {"virtnbd-plain", "", copied}, {"virtnbd-plain", "", reversed}, {"virtnbd-lz4", "", kept}, {"virtnbd-copy", "", kept},
	{"virtnbd-diff", "", kept}, {"virtnbd-resize", "", kept}, {"virtnbd-chunked", "", kept}, {"virtnbd-offline", "", kept},
	{"virtnbd-lost", "", kept}, {"virtnbd-lossy", "", kept}, {"virtnbd-lz4-notrailer", "", kept},
	{"virtnbd-plain", "Touch", kept}, {"virtnbd-plain", "RemoveMiddle", kept}, {"virtnbd-plain", "RemoveFull", kept},
	{"virtnbd-plain", "SwapTwo", kept}, {"virtnbd-plain", "ForeignDisk", kept}, {"virtnbd-plain", "ForeignDomain", kept},
	{"virtnbd-plain", "CorruptFrame", kept}, {"virtnbd-chksum", "CorruptFrame", kept}, {"virtnbd-lz4", "CorruptFrame", kept},
	{"virtnbd-plain", "CorruptHeader", kept}, {"virtnbd-plain", "CutStream", kept}, {"virtnbd-lz4", "CutStream", kept},
	{"virtnbd-plain", "CutAtFrame", kept}, {"virtnbd-plain", "FullUnderIncName", kept}, {"virtnbd-lz4", "FullUnderIncName", kept},
	{"virtnbd-plain", "ZeroFrames", kept}, {"virtnbd-plain", "TwoCandidates", kept}, {"virtnbd-plain", "WrongBase", kept},
	{"virtnbd-plain", "Partial", kept}, {"virtnbd-plain", "Traversal", kept},
}

var libvirt = []trial{
	{"libvirt-demo", "", kept}, {"libvirt-demo", "", copied}, {"libvirt-demo", "", reversed}, {"libvirt-raw", "", kept}, {"libvirt-v2", "", kept}, {"libvirt-resize", "", kept},
	{"libvirt-demo", "Touch", kept}, {"libvirt-demo", "RemoveMiddle", kept}, {"libvirt-demo", "SwapTwo", kept},
	{"libvirt-twodisks", "ForeignDisk", kept}, {"libvirt-demo", "ForeignDomain", kept}, {"libvirt-demo", "CorruptCluster", kept},
	{"libvirt-demo", "CorruptTable", kept}, {"libvirt-demo", "CutImage", kept}, {"libvirt-demo", "FullImageUnderIncName", kept},
	{"libvirt-demo", "WrongImageBase", kept},
}

var linked = []trial{
	{"qcow2-relative", "", kept}, {"qcow2-absolute", "", kept}, {"qcow2-moved", "", kept}, {"qcow2-json", "", kept},
	{"ovirt", "", kept}, {"cloudstack", "", kept},
	{"qcow2-relative", "Touch", kept}, {"qcow2-relative", "RemoveMiddle", kept}, {"qcow2-relative", "SwapTwo", kept},
	{"ovirt", "ForeignDisk", kept}, {"qcow2-relative", "CorruptCluster", kept}, {"qcow2-relative", "CorruptTable", kept},
	{"qcow2-relative", "CutImage", kept}, {"qcow2-relative", "WrongImageBase", kept}, {"qcow2-relative", "FlatRebase", kept},
	{"ovirt", "FlatRebase", kept}, {"cloudstack", "FlatRebase", kept},
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run() error {
	if err := versions(); err != nil {
		return err
	}
	if err := table("virtnbdrestore", virtnbd, virtnbdrestore); err != nil {
		return err
	}
	if err := table("qemu-img rebase -u and convert, by file time", libvirt, rebaseAll); err != nil {
		return err
	}
	return table("qemu-img convert, by the backing names", linked, convert)
}

// versions prints the tools'.
func versions() error {
	var names []string
	for _, args := range [][]string{{"virtnbdrestore", "-V"}, {"qemu-img", "--version"}} {
		out, err := exec.Command(args[0], args[1:]...).Output()
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		line, _, _ := strings.Cut(string(out), "\n")
		names = append(names, strings.TrimPrefix(args[0]+" "+line, "qemu-img "))
	}
	fmt.Printf("Made by `scripts/peers` with %s.\n", strings.Join(names, " and "))
	return nil
}

// A restorer restores a disk of a set up to a point, "" for the newest, into dir.
// It returns the image and the tool's own opinion of its success.
type restorer func(set sets.Set, from, dir string, t sets.Truth, newest bool) (image string, err error)

func table(tool string, trials []trial, r restorer) error {
	fmt.Printf("\n## %s\n\n| set | what happened to it | newest point | that point | qbit must: newest | that point |\n|---|---|---|---|---|---|\n", tool)
	for _, tr := range trials {
		row, err := tr.row(r)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", tr.set, tr.mutation, err)
		}
		fmt.Println(row)
	}
	return nil
}

// row does one trial on the first disk.
func (tr trial) row(r restorer) (string, error) {
	tmp, err := os.MkdirTemp("", "peers")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	s, from := sets.Get(tr.set), filepath.Join(tmp, "set")
	if err := errors.Join(os.Mkdir(from, 0o755), s.Build(from)); err != nil {
		return "", err
	}
	about, e, err := tr.mutate(s, from)
	if err != nil {
		return "", err
	}
	points := s.Points(s.Disks()[0])
	newest, hit := points[len(points)-1], touched(points, e)
	cells := []string{tr.set, about,
		outcome(r, s, from, filepath.Join(tmp, "newest"), newest, true), outcome(r, s, from, filepath.Join(tmp, "hit"), hit, false),
		tr.wanted(e, newest), tr.wanted(e, hit)}
	return "| " + strings.Join(cells, " | ") + " |", nil
}

func (tr trial) wanted(e sets.Expect, t sets.Truth) string {
	if tr.mutation == "" {
		return t.Wants.String()
	}
	return e.Of(t).String()
}

// mutate also gives the files the times at which the tool wrote them, by name.
func (tr trial) mutate(s sets.Set, dir string) (string, sets.Expect, error) {
	about := [...]string{"nothing", "copied without its file times", "copied, the increments newest first"}[tr.times]
	var e sets.Expect
	if tr.mutation != "" {
		m := sets.Mutate(tr.mutation)
		about = m.About
		var err error
		if e, err = m.Apply(dir, s); err != nil {
			return "", e, err
		}
	}
	if tr.times == copied || tr.mutation == "Touch" {
		return about, e, nil
	}
	return about, e, inOrder(s, dir, tr.times == reversed)
}

// inOrder gives the files of each point a time of its own.
func inOrder(s sets.Set, dir string, backwards bool) error {
	first := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, t := range s.Truth {
		at := first.Add(time.Duration(i) * time.Hour)
		if backwards && t.Parent != "" {
			at = first.Add(time.Duration(100-i) * time.Hour)
		}
		names, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(strings.TrimSuffix(t.Files[0], ".data"))+"*"))
		if err != nil {
			return err
		}
		for j, name := range names {
			minute := at.Add(time.Duration(j) * time.Minute)
			if err := os.Chtimes(name, minute, minute); err != nil {
				return err
			}
		}
	}
	return nil
}

// touched is the point that a mutation reached first; without any, one in the middle.
func touched(points []sets.Truth, e sets.Expect) sets.Truth {
	for _, t := range points {
		for _, f := range e.Files {
			if f == t.Files[0] && t.Parent != "" {
				return t
			}
		}
	}
	return points[len(points)/2]
}

// outcome is what the tool said, and whether the bytes are the truth.
func outcome(r restorer, s sets.Set, from, out string, t sets.Truth, newest bool) string {
	if err := os.Mkdir(out, 0o755); err != nil {
		return err.Error()
	}
	image, err := r(s, from, out, t, newest)
	said := "status 0"
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if said = fmt.Sprintf("status %d", exit.ExitCode()); exit.ExitCode() < 0 {
			said = "hangs"
		}
	} else if err != nil {
		return err.Error()
	}
	sum, size, err := digest(image)
	switch {
	case err != nil:
		return said + ", no disk"
	case sum == t.SHA256:
		return said + ", right"
	case size != t.Size:
		return fmt.Sprintf("%s, **wrong** (size %d, not %d)", said, size, t.Size)
	}
	return said + ", **wrong bytes**"
}

// digest is of an image's content; a raw disk is made of it.
func digest(image string) (string, int64, error) {
	raw := image + ".raw"
	if err := exec.Command("qemu-img", "convert", "-O", "raw", image, raw).Run(); err != nil {
		return "", 0, err
	}
	f, err := os.Open(raw)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), n, err
}
