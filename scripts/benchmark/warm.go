package main

import (
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// warmMargin is what any command may touch beside what it writes: its own memory,
	// tables of the filesystem, pages read ahead.
	warmMargin = 64 * mib
	// warmStep is how much is mapped at a time.
	warmStep = 64 * mib
)

// warm touches more memory than a command is to write, and gives it back at once, so
// that the command gets pages that the machine has.
//
// A virtual machine may report memory that was free for two seconds to its host, which
// takes it away; to touch such a page again costs many times what a page costs that is
// there. A command would pay for what the one before it freed: to write 4 GiB to tmpfs
// took from 1.6 to 6.7 seconds by that alone, and from 1.4 to 1.6 after as much was
// touched. More than a little above that is of no use: the reporting goes on meanwhile,
// takes a sixteenth of what is free at a time, and has more of it the longer this takes.
func warm(writes int64) {
	left := min(writes+writes/8+warmMargin, freeMemory()*9/10)
	var parts [][]byte
	for ; left > 0; left -= warmStep {
		p, err := unix.Mmap(-1, 0, int(min(left, warmStep)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			break
		}
		parts = append(parts, p)
	}
	half := len(parts) / 2
	var wg sync.WaitGroup
	wg.Go(func() { touchPages(parts[:half]) })
	wg.Go(func() { touchPages(parts[half:]) })
	wg.Wait()
	for _, p := range parts {
		unix.Munmap(p)
	}
}

// touchPages has the system give all pages, small ones, as those of files are.
func touchPages(parts [][]byte) {
	for _, p := range parts {
		unix.Madvise(p, unix.MADV_NOHUGEPAGE) // advice: where it fails, nothing is lost
		for i := 0; i < len(p); i += 4 * kib {
			p[i] = 1
		}
	}
}

// freeMemory is how many bytes nobody uses. The page cache is a user.
func freeMemory() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(info.Freeram) * int64(info.Unit)
}
