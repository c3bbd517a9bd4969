package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
)

// repairFlags are the flags of check that change an image.
type repairFlags struct {
	repair  string // "": check alone
	dry     bool
	journal string
	undo    string
	to      string
	drop    bool // the snapshots, where they are broken
}

// journalSuffix makes the name of a journal of that of the image.
const journalSuffix = ".qbit-repair.json"

// wanted refuses flags that do not belong together; the result says whether an image
// is to be changed.
func (k *checkCommand) wanted(args []string) (bool, error) {
	r := &k.repairFlags
	switch {
	case r.repair != "" && r.undo != "":
		return false, usagef("-r and --undo cannot be given together")
	case r.repair == "" && (r.dry || r.to != "" || r.journal != ""):
		return false, usagef("-n, --journal and --to belong to -r")
	case r.drop && r.repair != string(qcow2.RepairAll):
		return false, usagef("--drop-snapshots belongs to -r all")
	case r.dry && (r.to != "" || r.journal != ""):
		return false, usagef("-n writes nothing; leave out --journal and --to")
	case r.repair == "" && r.undo == "":
		return false, nil
	case len(args) != 1:
		return false, usagef("a repair takes one image")
	case k.share:
		return false, usagef("-U is for reading; an image is never repaired while another process has it open")
	}
	return true, nil
}

// change runs -r or --undo.
func (k *checkCommand) change(ctx context.Context, c *console, path string) error {
	if k.undo != "" {
		return k.runUndo(c, path)
	}
	file, err := k.openForRepair(c, path)
	if err != nil {
		return err
	}
	defer file.release()
	opts := qcow2.RepairOptions{Mode: qcow2.RepairMode(k.repair), Memory: int64(k.memory), DropSnapshots: k.drop}
	plan, err := qcow2.PlanRepair(ctx, file, file.size, &qcow2.Options{Limits: k.limits.limits}, opts)
	if err != nil {
		return explainRepair(path, err)
	}
	report := newRepairReport(path, plan, k)
	if !k.dry && (len(plan.Phases) > 0 || k.to != "") {
		if err := k.apply(ctx, c, file, plan, report); err != nil {
			return err
		}
	}
	if err := k.tell(c, report); err != nil {
		return err
	}
	if k.dry {
		return verdict(plan.Before)
	}
	return verdict(plan.After)
}

// openForRepair opens the image as the repair needs it: for writing, unless it only
// looks, or writes to a copy.
func (k *checkCommand) openForRepair(c *console, path string) (*imageFile, error) {
	mode, access := qcow2.LockWrite, os.O_RDWR
	if k.dry || k.to != "" {
		mode, access = qcow2.LockRead, os.O_RDONLY
	}
	return openLocked(c, path, mode, access)
}

// explainRepair adds the image to an error, and the way out where there is one.
func explainRepair(path string, err error) error {
	err = fmt.Errorf("%s: %w", escapeName(path), err)
	format := errors.As(err, new(*qcow2.FormatError))
	if errors.Is(err, qcow2.ErrCannotRepair) || format && !errors.As(err, new(*qcow2.LimitError)) {
		err = fmt.Errorf("%w; qbit salvage -o NEW %s reads what can be read", err, shellWord(path))
	}
	if errors.Is(err, qcow2.ErrBrokenSnapshots) {
		err = fmt.Errorf("%w, and --drop-snapshots gives up the snapshots and mends the rest", err)
	}
	if format || errors.Is(err, qcow2.ErrCannotRepair) {
		return errors.Join(err, errCorrupt)
	}
	return err
}

// apply writes the journal, and then the image or a copy of it.
func (k *checkCommand) apply(ctx context.Context, c *console, file *imageFile, plan *qcow2.Repair, report *repairReport) error {
	name := k.journal
	if name == "" && k.to == "" {
		name = file.path + journalSuffix
	}
	if name != "" {
		if err := writeJournal(name, file.path, plan); err != nil {
			return err
		}
		report.Journal = name
	}
	if k.to != "" {
		return k.repairCopy(ctx, c, file, plan)
	}
	if err := plan.Apply(file.File); err != nil {
		return fmt.Errorf("%s: %w; qbit check --undo %s %s gives back what it was", escapeName(file.path), err, shellWord(name), shellWord(file.path))
	}
	return nil
}

// writeJournal writes a journal and waits until it is safe.
func writeJournal(name, image string, plan *qcow2.Repair) error {
	out, err := reconstruct.CreateOutput(name, nil)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: there is a journal of an earlier repair; keep it as long as that may have to be undone, and name another one with --journal", escapeName(name))
	}
	if err != nil {
		return plainError(name, err)
	}
	defer out.Abort()
	if err := plan.WriteJournal(out.File(), image); err != nil {
		return fmt.Errorf("%s: writing the journal: %w", escapeName(name), err)
	}
	if err := out.Commit(); err != nil {
		return fmt.Errorf("%s: writing the journal: %w", escapeName(name), err)
	}
	return nil
}

// repairCopy repairs a copy of the image, which gets its name when it is whole.
func (k *checkCommand) repairCopy(ctx context.Context, c *console, file *imageFile, plan *qcow2.Repair) error {
	out, err := reconstruct.CreateOutput(k.to, &reconstruct.OutputOptions{Inputs: []fs.FileInfo{file.info}})
	if err != nil {
		return plainError(k.to, err)
	}
	defer out.Abort()
	if err := copyFile(ctx, c, file, out.File()); err != nil {
		return fmt.Errorf("%s: copying the image: %w", escapeName(k.to), err)
	}
	if err := plan.Apply(out.File()); err != nil {
		return fmt.Errorf("%s: %w", escapeName(k.to), err)
	}
	return out.Commit()
}

// copyFile copies a file; what is a hole in it stays one.
func copyFile(ctx context.Context, c *console, from *imageFile, to *os.File) error {
	if err := to.Truncate(from.size); err != nil {
		return err
	}
	o := &opener{c: c}
	buf := make([]byte, 1<<20)
	for e, err := range o.rawDisk(from, false).Extents(0, from.size) {
		if err != nil {
			return err
		}
		if e.Kind != qcow2.Data {
			continue
		}
		for off := e.Off; off < e.End(); off += int64(len(buf)) {
			part := buf[:min(int64(len(buf)), e.End()-off)]
			if _, err := from.ReadAt(part, off); err != nil {
				return err
			}
			if _, err := to.WriteAt(part, off); err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// runUndo is --undo.
func (k *checkCommand) runUndo(c *console, path string) error {
	f, err := os.Open(k.undo)
	if err != nil {
		return plainError(k.undo, err)
	}
	defer f.Close()
	journal, err := qcow2.ReadJournal(f)
	if err != nil {
		return fmt.Errorf("%s: %w", escapeName(k.undo), err)
	}
	file, err := openLocked(c, path, qcow2.LockWrite, os.O_RDWR)
	if err != nil {
		return err
	}
	defer file.release()
	if err := journal.Undo(file.File, file.size); err != nil {
		return fmt.Errorf("%s: %w", escapeName(path), err)
	}
	if !k.quiet {
		fmt.Fprintf(c.out, "%s is as it was before the repair.\n", escapeName(path))
	}
	return nil
}
