package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// meterRun runs a meter over one GiB, a part of it each second.
func meterRun(flags progressFlags, width, seconds int) string {
	var out bytes.Buffer
	now := time.Unix(1000, 0)
	c := &console{err: &out, errWidth: func() int { return width }, now: func() time.Time { return now }}
	m := newMeter(c, &flags, "restore", 1<<30)
	for i := range seconds {
		now = now.Add(time.Second)
		m.Set(1 << 30 * int64(i+1) / int64(seconds))
	}
	m.Finish()
	m.Finish() // the second one says nothing
	return out.String()
}

func TestMeterBar(t *testing.T) {
	out := meterRun(progressFlags{mode: "auto"}, 100, 4)
	lines := strings.Split(out, "\r")
	want := "restore  50%  512 MiB of 1.0 GiB  256 MiB/s  00:02 left  [####################....................]"
	if len(lines) != 6 || strings.TrimSpace(lines[2]) != want {
		t.Errorf("lines are %q, want the third to be %q", lines, want)
	}
	last := lines[len(lines)-1]
	if !strings.Contains(last, "100%  1.0 GiB of 1.0 GiB  256 MiB/s  in 00:04") || !strings.HasSuffix(last, "\n") {
		t.Errorf("the last line is %q", last)
	}
	for _, line := range lines {
		if len(strings.TrimRight(line, "\n ")) >= 100 {
			t.Errorf("%q does not fit into 100 columns", line)
		}
	}
}

func TestMeterNarrow(t *testing.T) {
	for _, line := range strings.Split(meterRun(progressFlags{mode: "bar"}, 24, 4), "\r") {
		if len(strings.TrimRight(line, "\n")) >= 24 {
			t.Errorf("%q does not fit into 24 columns", line)
		}
	}
}

func TestMeterPlain(t *testing.T) {
	if out := meterRun(progressFlags{mode: "auto"}, 0, 9); out != "" {
		t.Errorf("a run of nine seconds printed %q", out)
	}
	want := "qbit: restore  50%  512 MiB of 1.0 GiB  51 MiB/s  00:10 left\n" +
		"qbit: restore 100%  1.0 GiB of 1.0 GiB  51 MiB/s  00:00 left\n" +
		"qbit: restore 100%  1.0 GiB of 1.0 GiB  51 MiB/s  in 00:20\n"
	if out := meterRun(progressFlags{mode: "plain"}, 80, 20); out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	if out := meterRun(progressFlags{mode: "auto", bar: true}, 0, 1); strings.Count(out, "\n") != 2 || strings.Contains(out, "\r") {
		t.Errorf("-p on a pipe printed %q", out)
	}
}

func TestMeterJSON(t *testing.T) {
	out := strings.TrimSpace(meterRun(progressFlags{mode: "json"}, 0, 4))
	lines := strings.Split(out, "\n")
	if len(lines) != 5 {
		t.Fatalf("%d lines, want 5: %q", len(lines), out)
	}
	var second, last progressLine
	if err := json.Unmarshal([]byte(lines[1]), &second); err != nil {
		t.Fatal(err)
	}
	if second.Done != 512<<20 || second.Percent != 50 || second.Rate != 256<<20 || second.Left == nil || *second.Left != 2 {
		t.Errorf("the second line is %s", lines[1])
	}
	if err := json.Unmarshal([]byte(lines[4]), &last); err != nil {
		t.Fatal(err)
	}
	if !last.Last || last.Percent != 100 || last.Elapsed != 4 {
		t.Errorf("the last line is %s", lines[4])
	}
}

func TestMeterSilent(t *testing.T) {
	for _, flags := range []progressFlags{{mode: "none"}, {mode: "auto", quiet: true}, {mode: "bar", bar: true, quiet: true}} {
		if out := meterRun(flags, 80, 30); out != "" {
			t.Errorf("%+v printed %q", flags, out)
		}
	}
}

func TestMeterWithoutTotal(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	c := &console{err: &out, errWidth: func() int { return 80 }, now: func() time.Time { return now }}
	m := newMeter(c, &progressFlags{mode: "bar"}, "digest", 0)
	now = now.Add(time.Second)
	m.Set(1 << 20)
	m.clearLine()
	m.Finish()
	if got := out.String(); !strings.Contains(got, "digest  1.0 MiB  1.0 MiB/s") || strings.Contains(got, "%") {
		t.Errorf("printed %q", got)
	}
}

func TestClock(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "00:00", 61 * time.Second: "01:01", 3*time.Hour + 62*time.Second: "3:01:02"} {
		if got := clock(d); got != want {
			t.Errorf("clock(%v) = %s, want %s", d, got, want)
		}
	}
}
