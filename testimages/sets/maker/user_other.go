//go:build !unix

package maker

import "os/exec"

func asUser(*exec.Cmd) {}

func give(string) error { return nil }
