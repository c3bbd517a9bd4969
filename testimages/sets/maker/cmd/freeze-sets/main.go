// Freeze-sets makes the sets under testimages/sets/data anew, with the
// virtnbdbackup, libvirt and QEMU of this machine. See scripts/freeze-images.
package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/qbitkit/qbit/testimages/sets/maker"
	"github.com/spf13/pflag"
)

// work is where disks and backups lie meanwhile. Its name gets into the sets, so
// it is one that any host with libvirt could have.
const work = "/var/lib/libvirt/images/qbit"

func main() {
	out := pflag.String("out", "testimages/sets/data", "folder that gets an archive and an index for each set")
	pflag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	if err := freeze(ctx, *out, pflag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "freeze-sets:", err)
		os.Exit(1)
	}
}

// freeze makes the named sets, or all of them.
func freeze(ctx context.Context, out string, only []string) error {
	private, err := os.MkdirTemp("", "libvirt")
	if err != nil {
		return err
	}
	defer os.RemoveAll(private)
	d, err := maker.Start(ctx, private)
	if err != nil {
		return err
	}
	for _, r := range maker.Recipes {
		if len(only) > 0 && !slices.Contains(only, r.Name) {
			continue
		}
		if err = freezeOne(ctx, d, out, r); err != nil {
			break
		}
	}
	return errors.Join(err, d.Close())
}

func freezeOne(ctx context.Context, d *maker.Daemon, out string, r maker.Recipe) error {
	if err := os.Mkdir(work, 0o755); err != nil {
		return fmt.Errorf("the folder for the disks must be new: %w", err)
	}
	defer os.RemoveAll(work)
	made, err := d.Make(ctx, work, r)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(made, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, r.Name+".json"), append(text, '\n'), 0o644); err != nil {
		return err
	}
	b, err := pack(filepath.Join(work, "backup"))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, r.Name+".tar.zst"), b, 0o644)
}

// pack makes an archive of a folder's files, without owners and times.
func pack(dir string) ([]byte, error) {
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(8<<20))
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(z)
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return packFile(w, filepath.ToSlash(name), path)
	})
	err = errors.Join(err, w.Close(), z.Close())
	return b.Bytes(), err
}

func packFile(w *tar.Writer, name, path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(b)), Mode: 0o644}); err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}
