package main

import (
	"math"
	"os"
	"runtime/debug"
)

const (
	// restoreMemory is how much restore takes for what is read and not yet written.
	restoreMemory = 64 << 20
	// otherMemory is for all that is neither that nor decoded streams: tables of
	// images, journals, what was let go of and not yet collected, the program.
	otherMemory = 32 << 20
)

// boundMemory has the garbage of a process collected before it takes more than its
// buffers and what streams keep, and not first when that has doubled. The user's own
// limit (GOMEMLIMIT) goes before.
func (r *restoreCommand) boundMemory(c *console) {
	if out, ok := c.out.(*os.File); !ok || out != os.Stdout {
		return // not the only one in this process
	}
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(int64(r.memory) + streamMemory + otherMemory)
	}
}
