// Freeze-chains makes the backup chains under testimages/chains anew, with the
// libvirt and QEMU of this machine. See scripts/freeze-images.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/qbitkit/qbit/testimages/chainmaker"
	"github.com/spf13/pflag"
)

// work is where the domains' disks lie while they run. libvirt writes that path
// into every increment, so it is one that any host with libvirt could have.
const work = "/var/lib/libvirt/images/qbit"

func main() {
	out := pflag.String("out", "testimages/chains", "folder that gets a folder for each chain")
	pflag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	if err := freeze(ctx, *out, pflag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "freeze-chains:", err)
		os.Exit(1)
	}
}

// freeze makes the named chains, or all of them. The libvirt of each ends first,
// so that nothing holds a file that is being read.
func freeze(ctx context.Context, out string, only []string) error {
	for _, s := range sets {
		if len(only) > 0 && !slices.Contains(only, s.name) {
			continue
		}
		if err := freezeOne(ctx, out, s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func freezeOne(ctx context.Context, out string, s set) error {
	dir := filepath.Join(work, s.name)
	if err := os.Mkdir(work, 0o755); err != nil {
		return fmt.Errorf("the folder for the disks must be new: %w", err)
	}
	defer os.RemoveAll(work)
	s.spec.Domain, s.spec.PushTruth = "qbit-"+s.name, true
	chain, err := chainmaker.Make(ctx, dir, s.spec)
	if err != nil {
		return err
	}
	to := filepath.Join(out, s.name)
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	return store(ctx, to, s, chain)
}

// index is chain.json.
type index struct {
	Name string `json:"name"`
	*chainmaker.Chain
	Files []file `json:"files"`
}

// store writes a chain's files, its index, and what QEMU thinks of each file.
func store(ctx context.Context, to string, s set, c *chainmaker.Chain) error {
	idx := index{Name: s.name, Chain: c.Relative()}
	opinions := map[string]opinion{}
	for i := range c.Disks {
		paths := c.Disks[i].Files()
		if s.plain {
			idx.Disks[i].Source = ""
		} else {
			paths = append(paths, c.Disks[i].Source)
		}
		for _, path := range paths {
			f, o, err := storeFile(ctx, to, path, s.plain)
			if err != nil {
				return err
			}
			idx.Files = append(idx.Files, f)
			opinions[f.Name] = o
		}
	}
	if err := copyXML(to, c); err != nil {
		return err
	}
	if s.plain {
		if err := writeSums(to, c); err != nil {
			return err
		}
	}
	said, err := json.Marshal(opinions)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(to, "qemu.json"), append(said, '\n'), 0o644); err != nil {
		return err
	}
	text, err := json.MarshalIndent(idx, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(to, "chain.json"), append(text, '\n'), 0o644)
}
