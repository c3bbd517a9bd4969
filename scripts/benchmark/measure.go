package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// A contestant is one command, and what its runs cost.
type contestant struct {
	name    string // as it is printed: the command without its files
	args    []string
	output  string        // a file that is removed before each run; "": none
	other   bool          // what it writes is not to be that of the first
	rounds  int           // at the most; 0: all
	limit   time.Duration // after which it is ended, and not run again; 0: never
	cut     bool          // it was ended at the limit
	elapsed []time.Duration
	cpu     []time.Duration
	peak    int64 // bytes of resident memory
}

// A cost is what one run of a command took.
type cost struct {
	Elapsed, CPU time.Duration
	Peak         int64
	Cut          bool // it was ended at its limit
}

// launchWord is the argument with which this program only runs another one. What a
// process is said to have used at the most includes what the one that started it had,
// so that a small one has to start those that are measured.
const launchWord = "launch"

// measure runs the command once.
func (c *contestant) measure() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, append([]string{launchWord, c.limit.String()}, c.args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%.300q: %w: %.1000s", c.args, err, stderr.Bytes())
	}
	var used cost
	if err := json.Unmarshal(out, &used); err != nil {
		return err
	}
	c.elapsed, c.cpu = append(c.elapsed, used.Elapsed), append(c.cpu, used.CPU)
	c.peak, c.cut = max(c.peak, used.Peak), c.cut || used.Cut
	return nil
}

// done says that the command does not run in a round, counted from 0.
func (c *contestant) done(round int) bool {
	return c.cut || c.rounds > 0 && round >= c.rounds
}

// launch runs a command, whose output nobody sees, and prints what it cost. The first
// argument is its limit.
func launch(args []string) error {
	limit, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	cmd := exec.Command(args[1], args[2:]...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what it starts ends with it
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	cut := false
	if limit > 0 {
		timer := time.AfterFunc(limit, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		defer timer.Stop()
	}
	err = cmd.Wait()
	used := cost{Elapsed: time.Since(start), CPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if exit := (*exec.ExitError)(nil); limit > 0 && used.Elapsed >= limit && errors.As(err, &exit) {
		err, cut = nil, true
	}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		used.Peak = int64(usage.Maxrss) << 10
	}
	used.Cut = cut
	return errors.Join(err, json.NewEncoder(os.Stdout).Encode(used))
}

// median of the elapsed times; of a command that was cut off, its limit.
func (c *contestant) median() time.Duration {
	if c.cut {
		return c.limit
	}
	return median(c.elapsed)
}

// least of the elapsed times.
func (c *contestant) least() time.Duration { return slices.Min(c.elapsed) }

func median(d []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[len(sorted)/2]
}

// tool runs a command that is not measured.
func tool(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %.300q: %w: %.1000s", name, args, err, out)
	}
	return nil
}

// inFolder runs f with a new folder as that of the settings, and removes it.
func inFolder(s settings, f func(settings) error) error {
	parent, err := filepath.Abs(s.dir)
	if err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp(parent, "qbit-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(s.dir)
	return f(s)
}

// settle has all files of a folder stored, so that nobody pays for what another left.
// A sync of everything would also wait for what other programs write.
func settle(dir string) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}
