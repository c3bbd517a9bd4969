package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"

	"github.com/dustin/go-humanize"
)

// load is how many programs wanted a processor during the last minute.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Fields(string(b) + " ")[0]
}

// machine says in a line where this was measured.
func machine() string {
	return fmt.Sprintf("%d processors (%s), %s of memory, %s, %s, %s.",
		runtime.NumCPU(), field("/proc/cpuinfo", `model name\s*: (.*)`), totalMemory(),
		"Linux "+field("/proc/sys/kernel/osrelease", `^(\d+\.\d+)`), version("qemu-img"), version("cp"))
}

// field is what the first group of a pattern matches in a file.
func field(path, pattern string) string {
	b, _ := os.ReadFile(path)
	if m := regexp.MustCompile(pattern).FindSubmatch(b); m != nil {
		return string(m[1])
	}
	return "unknown"
}

func totalMemory() string {
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) != nil {
		return "unknown"
	}
	return humanize.IBytes(uint64(info.Totalram) * uint64(info.Unit))
}

// version is the first line of what a program says of itself, without the packager's words.
func version(program string) string {
	out, _ := exec.Command(program, "--version").Output()
	first, _, _ := strings.Cut(string(out), "\n")
	return regexp.MustCompile(` \(Debian .*\)`).ReplaceAllString(first, "")
}
