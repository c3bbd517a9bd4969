package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/qbitkit/qbit/testimages/sets"
)

// limit is for a tool that hangs.
const limit = 2 * time.Minute

// virtnbdrestore wants a libvirt to talk to; the driver for tests will do.
func virtnbdrestore(s sets.Set, from, dir string, t sets.Truth, newest bool) (string, error) {
	out := filepath.Join(dir, "out")
	args := []string{"-U", "test:///default", "-i", from, "-o", out, "-d", t.Disk, "-n",
		"-L", filepath.Join(dir, "log"), "-f", filepath.Join(dir, "socket")}
	if !newest {
		args = append(args, "--until", t.Point)
	}
	if err := bounded(exec.Command("virtnbdrestore", args...)); err != nil {
		return anyImage(out), err
	}
	return anyImage(out), nil
}

// anyImage is the disk that was made, if any.
func anyImage(dir string) string {
	names, _ := filepath.Glob(filepath.Join(dir, "*.qcow2"))
	if len(names) != 1 {
		return filepath.Join(dir, "none")
	}
	return names[0]
}

// bounded ends a tool that does not end itself.
func bounded(cmd *exec.Cmd) error {
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	if err := cmd.Start(); err != nil {
		return err
	}
	timer := time.AfterFunc(limit, func() { cmd.Process.Kill() })
	defer timer.Stop()
	return cmd.Wait()
}

// rebaseAll is what people do by hand: the files by their times, each rebased onto
// the one before it, up to the wanted one. Raw files become qcow2 first.
func rebaseAll(s sets.Set, from, dir string, t sets.Truth, newest bool) (string, error) {
	names, err := byTime(s, from, t)
	if err != nil {
		return "", err
	}
	below, until := "", filepath.Base(t.Files[0])
	for i, name := range names {
		to := filepath.Join(dir, fmt.Sprintf("%d.qcow2", i))
		if err := asQcow2(name, to); err != nil {
			return to, err
		}
		if below != "" {
			cmd := exec.Command("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", below, to)
			if err := bounded(cmd); err != nil {
				return to, err
			}
		}
		below = to
		if !newest && filepath.Base(name) == until {
			break
		}
	}
	top := filepath.Join(dir, "top.qcow2")
	return top, bounded(exec.Command("qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", below, top))
}

// byTime are the disk's files, the oldest first.
func byTime(s sets.Set, dir string, t sets.Truth) ([]string, error) {
	var names []string
	times := map[string]time.Time{}
	for _, row := range s.Points(t.Disk) {
		name := filepath.Join(dir, row.Files[0])
		st, err := os.Stat(name)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		names, times[name] = append(names, name), st.ModTime()
	}
	slices.Sort(names)
	slices.SortStableFunc(names, func(a, b string) int { return times[a].Compare(times[b]) })
	return names, nil
}

func asQcow2(from, to string) error {
	if strings.HasSuffix(from, ".raw") {
		return bounded(exec.Command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", from, to))
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

// convert trusts what the files say of each other.
func convert(s sets.Set, from, dir string, t sets.Truth, _ bool) (string, error) {
	top := filepath.Join(dir, "top.qcow2")
	return top, bounded(exec.Command("qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", filepath.Join(from, filepath.FromSlash(t.Files[0])), top))
}
