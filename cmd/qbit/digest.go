package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/reconstruct"
)

func digestVerb() verb {
	return verb{
		name:  "digest",
		args:  "DISK | LINK…",
		short: "checksum the content of a disk",
		long:  digestHelp,
		new:   func() command { return new(digestCommand) },
	}
}

const digestHelp = `Prints checksums of what a guest would read from a disk. They depend on the
content alone: an image, a chain and the raw disk of the same content agree.

  sha256     what sha256sum prints for the raw disk
  xxh64      what xxhsum prints for the raw disk (64 bits, seed 0)
  xxh64-4m   xxh64 over the xxh64 of each chunk of 4 MiB and the size of the disk

Holes are never read. The first two have to pass over their zeros all the same,
about a second for each GiB or two; for xxh64-4m holes cost nothing, so it
is the one for large and mostly empty disks (--digest xxh64-4m). The xxh64 kinds
find damage; only sha256 stands up to somebody who wants to deceive.

` + diskHelp + `
Several arguments are the links of one chain, oldest first.

` + refHelp

// digestCommand is `qbit digest`.
type digestCommand struct {
	sourceFlags
	outputFlag
	progressFlags
	digests []string
}

func (d *digestCommand) setFlags(fs *pflag.FlagSet) {
	registerDigests(fs, &d.digests, reconstruct.DigestNames())
	d.outputFlag.register(fs)
	d.progressFlags.register(fs)
	d.sourceFlags.register(fs)
}

func (d *digestCommand) run(ctx context.Context, c *console, args []string) error {
	if len(args) == 0 {
		return usagef("digest takes a DISK, or the links of a chain")
	}
	if err := checkDigests(d.digests); err != nil {
		return err
	}
	o, err := d.newOpener(c)
	if err != nil {
		return err
	}
	defer o.close()
	ch, err := o.openLinks(args)
	if err != nil {
		return err
	}
	m := newMeter(c, &d.progressFlags, "digest", ch.disk.Size())
	defer m.clearLine()
	result, err := reconstruct.Copy(ctx, nil, ch.disk, &reconstruct.CopyOptions{
		Digests:  digestNames(d.digests),
		Progress: func(p reconstruct.Progress) { m.Set(p.Done) },
	})
	if err != nil {
		return nameLayer(ch, err)
	}
	m.Finish()
	return d.print(c, args, result)
}

func (d *digestCommand) print(c *console, args []string, result *reconstruct.Result) error {
	if d.json() {
		return json.NewEncoder(c.out).Encode(struct {
			Disk    []string          `json:"disk"`
			Size    int64             `json:"virtual-size"`
			Digests map[string]string `json:"digests"`
		}{args, result.Size, digestMap(result.Digests)})
	}
	for _, sum := range result.Digests {
		if _, err := fmt.Fprintln(c.out, sum); err != nil {
			return err
		}
	}
	return nil
}

// registerDigests registers --digest.
func registerDigests(fs *pflag.FlagSet, p *[]string, usual []string) {
	fs.StringSliceVar(p, "digest", usual, "compute these, separated by commas: `NAMES` of\n"+
		strings.Join(reconstruct.DigestNames(), ", ")+", or none")
}

// checkDigests finds a name that is none.
func checkDigests(names []string) error {
	for i, name := range names {
		switch {
		case name == "none" && len(names) > 1:
			return usagef("--digest: none stands alone")
		case name != "none" && !slices.Contains(reconstruct.DigestNames(), name):
			return usagef("--digest: there is no %q; it is %s, or none", name, strings.Join(reconstruct.DigestNames(), ", "))
		case slices.Contains(names[:i], name):
			return usagef("--digest: %s stands there twice", name)
		}
	}
	return nil
}

// digestNames is what Copy wants.
func digestNames(names []string) []string {
	if len(names) == 1 && names[0] == "none" {
		return nil
	}
	return names
}

func digestMap(digests []reconstruct.Digest) map[string]string {
	m := make(map[string]string, len(digests))
	for _, d := range digests {
		m[d.Name] = hex.EncodeToString(d.Sum)
	}
	return m
}
