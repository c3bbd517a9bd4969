package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
)

// A contestant is one command, and what its runs cost.
type contestant struct {
	name    string
	args    []string
	output  string
	rounds  int // at the most; 0: all
	elapsed []time.Duration
	cpu     []time.Duration
	peak    int64 // bytes of resident memory
}

func (c *contestant) measure() error {
	cmd := exec.Command(c.args[0], c.args[1:]...)
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%q: %w: %s", c.args, err, out)
	}
	c.elapsed = append(c.elapsed, time.Since(start))
	c.cpu = append(c.cpu, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.peak = max(c.peak, int64(usage.Maxrss)<<10)
	}
	return nil
}

func median(d []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[len(sorted)/2]
}

func printTable(name string, runs []*contestant) {
	fmt.Println(name)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "rounds\tmedian\tmin\tmax\tCPU\tratio\tmemory\t  command")
	own := median(runs[0].elapsed)
	for _, r := range runs {
		m := median(r.elapsed)
		fmt.Fprintf(w, "%d\t%.2fs\t%.2fs\t%.2fs\t%.2fs\t%.2f\t%s\t  %s\n", len(r.elapsed), m.Seconds(), slices.Min(r.elapsed).Seconds(),
			slices.Max(r.elapsed).Seconds(), median(r.cpu).Seconds(), m.Seconds()/own.Seconds(),
			humanize.IBytes(uint64(r.peak)), r.name)
	}
	w.Flush()
	fmt.Println("ratio: this command's median by that of qbit; above 1, qbit is faster")
}
