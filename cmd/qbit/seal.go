package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/manifest"
)

func sealVerb() verb {
	return verb{
		name:  "seal",
		args:  "FOLDER | FILE…",
		short: "write down what backups hold, so that a later change is found",
		long:  sealHelp,
		exits: sealExits,
		new:   func() command { return new(sealCommand) },
	}
}

const sealHelp = `Writes a manifest next to the backups, ` + manifest.FileName + `: for each point of each
disk the checksum of every 4 MiB of guest content, their root (which is the digest
xxh64-4m that qbit digest prints), the root of the parent, and the sizes and
checksums of the files. With a manifest, restore and verify find every chunk that is
not what it was, and say which link it comes from: rot, a wrong base, increments in
another order.

Of an increment only the chunks that it touches are hashed. Points that are sealed
already stay as they are: the sizes of their files are looked at, and with --recheck
their checksums too. So sealing after each backup costs little more than reading the
new file. What cannot be restored is not sealed; what stands on an assumption only
with --assume, and the manifest says so.

The checksums are xxHash: they find accidents. --sha256 adds cryptographic ones,
which find what somebody did on purpose, as long as the manifest itself (or its
sha256) is kept where he cannot reach it. docs/manifest.md describes the document.

` + setHelp

const sealExits = `0  every point is sealed
1  could not: a file is missing, unreadable, in use, or not allowed
2  a point cannot be restored and was not sealed, or a file is not what was sealed
3  the command line is wrong`

// sealCommand is `qbit seal`.
type sealCommand struct {
	folder setFlags
	sourceFlags
	outputFlag
	progressFlags
	out     string
	force   bool
	recheck bool
	forget  bool
	assume  bool
	sha256  bool
	workers int
	memory  sizeValue
}

func (k *sealCommand) setFlags(fs *pflag.FlagSet) {
	fs.StringVarP(&k.out, "out", "o", "", "write the manifest to `FILE`, and not into the folder")
	fs.BoolVar(&k.recheck, "recheck", false, "hash the files of points that are sealed already again")
	fs.BoolVar(&k.assume, "assume", false, "seal points too that are only assumed to stand on each other")
	fs.BoolVar(&k.sha256, "sha256", false, "add the sha256 of files and of the content, of which all\nthen has to be read")
	fs.BoolVar(&k.forget, "forget", false, "drop the points whose files are gone")
	fs.BoolVar(&k.force, "force", false, "seal everything anew, and replace the manifest that is there")
	fs.IntVarP(&k.workers, "workers", "m", 0, "read in this `NUMBER` of threads; 0: one a processor, but\n2 to 8")
	k.memory = 64 << 20
	fs.Var(&k.memory, "memory", "use at most this `SIZE` of buffers")
	k.folder.register(fs)
	k.outputFlag.register(fs)
	k.progressFlags.register(fs)
	k.sourceFlags.register(fs)
}

func (k *sealCommand) run(ctx context.Context, c *console, args []string) error {
	s, err := k.folder.openSet(ctx, args, k.limits.limits)
	if err != nil {
		return err
	}
	defer s.close()
	if len(s.Disks) == 0 {
		return badData{fmt.Errorf("%s: no backup was found", escapeName(s.path))}
	}
	w := &sealWork{k: k, c: c, s: s, path: k.out, whole: len(args) == 1 && isFolder(args[0])}
	if w.path == "" {
		w.path = s.manifestPath()
	}
	if err := w.begin(ctx); err != nil {
		return err
	}
	w.meter = newMeter(c, &k.progressFlags, "seal", w.total())
	defer w.meter.clearLine()
	for _, d := range s.Disks {
		if err := w.disk(ctx, d); err != nil {
			return err
		}
	}
	w.gone()
	w.meter.Finish()
	if err := w.write(); err != nil {
		return err
	}
	return w.report()
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// begin reads the manifest that is to be extended.
func (w *sealWork) begin(ctx context.Context) error {
	w.m = &manifest.Manifest{}
	info, err := os.Lstat(w.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return plainError(w.path, err)
	case w.k.force:
		w.there = true
		return w.refuseBackups(info)
	}
	if w.m, err = w.s.loadManifest(w.path); err != nil {
		return fmt.Errorf("%w; --force makes a new manifest in its place", err)
	}
	w.there = true
	return w.checkRoots(ctx)
}

// checkRoots finds a manifest that contradicts itself before it is extended.
func (w *sealWork) checkRoots(ctx context.Context) error {
	for _, d := range w.m.Disks {
		for _, p := range d.Points {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			v, err := w.view(d, p)
			if err == nil {
				err = v.Check()
			}
			if err != nil {
				return badData{fmt.Errorf("%s: %w; --force makes a new manifest in its place", escapeName(w.path), err)}
			}
		}
	}
	return nil
}

// refuseBackups refuses to replace what is part of the set.
func (w *sealWork) refuseBackups(old fs.FileInfo) error {
	for _, info := range w.inputs() {
		if os.SameFile(old, info) {
			return fmt.Errorf("%s: it is one of the backups", escapeName(w.path))
		}
	}
	return nil
}

// inputs are the files that must never be replaced.
func (w *sealWork) inputs() []fs.FileInfo {
	var all []fs.FileInfo
	for _, d := range w.s.Disks {
		for _, b := range d.Backups {
			if info, err := w.s.root.Stat(filepath.FromSlash(b.Source.Path)); err == nil {
				all = append(all, info)
			}
		}
	}
	return all
}

// write writes the manifest under a temporary name first.
func (w *sealWork) write() error {
	if !w.changed {
		return nil
	}
	out, err := reconstruct.CreateOutput(w.path, &reconstruct.OutputOptions{Overwrite: w.there, Inputs: w.inputs()})
	if err != nil {
		return err
	}
	defer out.Abort()
	if err := w.m.Encode(out.File()); err != nil {
		return fmt.Errorf("%s: %w", escapeName(w.path), err)
	}
	return out.Commit()
}
