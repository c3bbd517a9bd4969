package maker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A Recipe is a machine and what happens to it.
type Recipe struct {
	Name   string // of the set
	Domain string
	Disks  []Disk
	Flags  []string // of every run of virtnbdbackup
	Zip    bool     // it writes a zip archive to its standard output
	Steps  []Step
}

// A Step is what the guest does, and then a backup.
type Step struct {
	Writes  map[string][]string // operations of qemu-io by disk
	Resize  map[string]int64
	Offline bool   // the machine is off from here on
	Level   string // full, inc, diff or copy
}

// A Row is the truth about a point of a disk; see package sets.
type Row struct {
	Disk   string    `json:"disk"`
	Point  string    `json:"point"`
	Kind   string    `json:"kind"`
	Parent string    `json:"parent,omitempty"`
	Size   int64     `json:"size"`
	SHA256 string    `json:"sha256"`
	At     time.Time `json:"at"`
	File   string    `json:"file"`
}

// A Made is what came out: a folder, and the truth about it.
type Made struct {
	Name  string            `json:"name"`
	Tools map[string]string `json:"tools"` // versions
	Zip   bool              `json:"zip,omitempty"`
	Truth []Row             `json:"truth"`
}

// work is one recipe being made.
type work struct {
	domain
	Recipe
	out   string // the backups
	tip   string // the newest checkpoint
	count int    // of checkpoints
	made  Made
}

// Make makes a set in dir, an empty folder that the daemon's user may write to;
// the backups are in its folder "backup" afterwards.
func (d *Daemon) Make(ctx context.Context, dir string, r Recipe) (*Made, error) {
	w := &work{Recipe: r, out: filepath.Join(dir, "backup"), made: Made{Name: r.Name, Zip: r.Zip}}
	w.domain = domain{Daemon: d, name: r.Domain, dir: filepath.Join(dir, "images"), disks: slices.Clone(r.Disks)}
	err := w.run(ctx)
	if gone := w.remove(ctx); err == nil {
		err = gone
	}
	if err != nil {
		return nil, fmt.Errorf("make set %s: %w", r.Name, err)
	}
	return &w.made, nil
}

func (w *work) run(ctx context.Context) error {
	for _, dir := range []string{w.out, w.dir} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(w.noise(), noise(), 0o644); err != nil {
		return err
	}
	if err := errors.Join(give(w.out), give(w.dir), w.create(ctx), w.versions(ctx)); err != nil {
		return err
	}
	for i, s := range w.Steps {
		if err := w.step(ctx, s); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

func (w *work) noise() string { return filepath.Join(w.dir, "noise.bin") }

// noise does not compress.
func noise() []byte {
	rng := rand.New(rand.NewPCG(11, 0))
	b := make([]byte, 8<<10)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func (w *work) step(ctx context.Context, s Step) error {
	for target, size := range s.Resize {
		if err := w.resize(ctx, target, size); err != nil {
			return err
		}
	}
	if s.Offline {
		if err := w.stop(ctx); err != nil {
			return err
		}
	}
	for _, d := range w.disks {
		if err := w.write(ctx, d, s); err != nil {
			return err
		}
	}
	before := time.Now()
	if err := w.backup(ctx, s.Level); err != nil {
		return err
	}
	return w.record(ctx, s, before)
}

// write does what the guest would; a machine that is off is written from outside,
// where QEMU's bitmaps record as well.
func (w *work) write(ctx context.Context, d Disk, s Step) error {
	for _, op := range append(slices.Clone(s.Writes[d.Target]), "flush") {
		op = strings.ReplaceAll(op, "NOISE", w.noise())
		if s.Offline {
			if _, err := w.Run(ctx, "", "qemu-io", "-f", d.Format, "-c", op, w.path(d)); err != nil {
				return err
			}
			continue
		}
		if err := w.act(ctx, d.Target, op); err != nil {
			return err
		}
	}
	return nil
}

// backup runs the tool once.
func (w *work) backup(ctx context.Context, level string) error {
	args := append([]string{"-U", URI, "-d", w.domain.name, "-n", "-S", w.dir,
		"-f", filepath.Join(w.dir, "socket"), "-l", level}, w.Flags...)
	if !w.Zip {
		_, err := w.Run(ctx, w.dir, "virtnbdbackup", append(args, "-o", w.out)...)
		return err
	}
	out, err := w.Run(ctx, w.dir, "virtnbdbackup", append(args, "-o", "-")...)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.out, "backup.zip"), out, 0o644)
}

// record adds a row for each disk that this step saved.
func (w *work) record(ctx context.Context, s Step, before time.Time) error {
	parent := w.tip
	if s.Level == "full" || s.Level == "inc" && !s.Offline {
		w.tip = fmt.Sprintf("virtnbdbackup.%d", w.count)
		w.count++
	}
	for _, d := range w.disks {
		row := Row{Disk: d.Target, Kind: s.Level, Point: w.tip, Size: d.Size, At: before.UTC().Truncate(time.Second)}
		if err := w.name(&row, d, parent, before); err != nil {
			return err
		}
		if row.File == "" {
			continue
		}
		var err error
		if row.SHA256, err = w.truth(ctx, d); err != nil {
			return err
		}
		w.made.Truth = append(w.made.Truth, row)
	}
	return nil
}

// name finds the point's file and what the tool calls the point.
func (w *work) name(row *Row, d Disk, parent string, before time.Time) error {
	switch {
	case d.Format == "raw" && row.Kind == "full" || row.Kind == "copy":
		row.Kind, row.Point, row.File = "copy", "copy", d.Target+".copy.data"
	case d.Format == "raw":
	case row.Kind == "full":
		row.File = d.Target + ".full.data"
	case row.Kind == "inc":
		row.Parent, row.File = parent, d.Target+".inc."+w.tip+".data"
	default:
		return w.nameDiff(row, d, parent, before)
	}
	return nil
}

// nameDiff looks for the file whose name is the time it was made at.
func (w *work) nameDiff(row *Row, d Disk, parent string, before time.Time) error {
	for at := before.Unix(); at <= time.Now().Unix(); at++ {
		name := fmt.Sprintf("%s.diff.%d.data", d.Target, at)
		if _, err := os.Stat(filepath.Join(w.out, name)); err == nil {
			row.Point, row.Parent, row.File = fmt.Sprint(at), parent, name
			return nil
		}
	}
	return fmt.Errorf("no differential backup of %s since %d", d.Target, before.Unix())
}

// versions asks the tools.
func (w *work) versions(ctx context.Context) error {
	w.made.Tools = map[string]string{}
	for name, args := range map[string][]string{"virtnbdbackup": {"-V"}, "virsh": {"--version"}, "qemu-img": {"--version"}} {
		out, err := w.Run(ctx, "", name, args...)
		if err != nil {
			return err
		}
		line, _, _ := strings.Cut(string(out), "\n")
		w.made.Tools[name] = line
	}
	return nil
}
