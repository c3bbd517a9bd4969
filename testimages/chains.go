// Package testimages holds backup chains that libvirt and QEMU really wrote, for
// tests to read. It knows nothing of the code that it is used to test.
package testimages

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
)

//go:embed chains
var chainFS embed.FS

// A Chain is backups that libvirt and QEMU wrote, with the truth about every
// point. Paths are those of the extracted files.
type Chain struct {
	Name   string              `json:"name"`
	Domain string              `json:"domain"`
	Seed   uint64              `json:"seed"`
	Tools  map[string]string   `json:"tools"` // versions of what made it
	Disks  []ChainDisk         `json:"disks"`
	Files  []ChainFile         `json:"files"`
	QEMU   map[string]QEMUSays `json:"-"` // by the file's base name
}

// A ChainDisk is one disk's backups, oldest first; the first is full.
type ChainDisk struct {
	Target string       `json:"target"` // vda, vdb, …
	Source string       `json:"source"` // the live image as it was left, with its bitmaps; "" where it was not kept
	Points []ChainPoint `json:"points"`
}

// A ChainPoint is one backup and the truth about the disk at that moment.
type ChainPoint struct {
	Checkpoint    string `json:"checkpoint"`
	Parent        string `json:"parent"` // the checkpoint that it is incremental to; "" for the full
	File          string `json:"file"`
	Format        string `json:"format"`  // qcow2 or raw
	Size          int64  `json:"size"`    // of the virtual disk, in bytes
	SHA256        string `json:"sha256"`  // of all its true bytes, in hex
	Backing       string `json:"backing"` // the name in the file's header, as written there
	Bitmap        string `json:"bitmap"`  // in Source: exactly what changed since Parent
	Lossy         bool   `json:"lossy"`   // right only with Bitmap
	Method        string `json:"method"`  // push, push --reuse-external, blockdev-backup
	CheckpointXML string `json:"checkpoint_xml"`
	BackupXML     string `json:"backup_xml"` // "" where libvirt did not make the backup
}

// A ChainFile is a frozen file.
type ChainFile struct {
	Name   string     `json:"name"`
	Stored string     `json:"stored"`
	Size   int64      `json:"size"`
	SHA256 string     `json:"sha256"`
	Holes  [][2]int64 `json:"holes"` // offset and length; part of what a raw increment says
}

// QEMUSays is the JSON that qemu-img printed about a file when it was frozen.
type QEMUSays struct {
	Info  json.RawMessage `json:"info"`
	Map   json.RawMessage `json:"map"`   // without the backing file
	Check json.RawMessage `json:"check"` // nil for raw
}

// Files are the backups' paths, oldest first.
func (d *ChainDisk) Files() []string {
	files := make([]string, len(d.Points))
	for i, p := range d.Points {
		files[i] = p.File
	}
	return files
}

// Chains are the names of the frozen chains.
func Chains() []string {
	entries, err := chainFS.ReadDir("chains")
	if err != nil {
		panic(err) // what is embedded cannot be missing
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// Extract writes a chain's files into dir, which must exist, with their holes as
// holes where the filesystem has such. It needs no tool.
func Extract(dir, name string) (*Chain, error) {
	sub, err := fs.Sub(chainFS, "chains/"+name)
	if err != nil {
		return nil, fmt.Errorf("extract chain: %w", err)
	}
	c := &Chain{}
	if err := readJSON(sub, "chain.json", c); err != nil {
		return nil, fmt.Errorf("extract chain %q: %w", name, err)
	}
	if err := readJSON(sub, "qemu.json", &c.QEMU); err != nil {
		return nil, fmt.Errorf("extract chain %q: %w", name, err)
	}
	for _, f := range c.Files {
		if err := f.extract(sub, dir); err != nil {
			return nil, fmt.Errorf("extract chain %q: %s: %w", name, f.Name, err)
		}
	}
	if err := extractXML(sub, dir); err != nil {
		return nil, fmt.Errorf("extract chain %q: %w", name, err)
	}
	c.settle(dir)
	return c, nil
}

// readJSON takes no key that it does not know: the writer is another program.
func readJSON(fsys fs.FS, name string, v any) error {
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// settle makes paths of the names.
func (c *Chain) settle(dir string) {
	at := func(name *string) {
		if *name != "" {
			*name = filepath.Join(dir, *name)
		}
	}
	for i := range c.Disks {
		d := &c.Disks[i]
		at(&d.Source)
		for j := range d.Points {
			p := &d.Points[j]
			at(&p.File)
			at(&p.CheckpointXML)
			at(&p.BackupXML)
		}
	}
}

func extractXML(sub fs.FS, dir string) error {
	names, err := fs.Glob(sub, "*.xml")
	if err != nil {
		return err
	}
	for _, name := range names {
		b, err := fs.ReadFile(sub, name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (f *ChainFile) extract(sub fs.FS, dir string) error {
	b, err := fs.ReadFile(sub, f.Stored)
	if err != nil {
		return err
	}
	if strings.HasSuffix(f.Stored, ".zst") {
		if b, err = decompress(b); err != nil {
			return err
		}
	}
	if sum := sha256.Sum256(b); int64(len(b)) != f.Size || hex.EncodeToString(sum[:]) != f.SHA256 {
		return fmt.Errorf("stored file has %d bytes of sha256 %x, not %d of %s", len(b), sum, f.Size, f.SHA256)
	}
	return f.write(filepath.Join(dir, f.Name), b)
}

func decompress(b []byte) ([]byte, error) {
	r, err := zstd.NewReader(nil)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return r.DecodeAll(b, nil)
}

// write leaves out the holes, in order, and so makes them.
func (f *ChainFile) write(path string, b []byte) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := out.Truncate(f.Size); err != nil {
		return err
	}
	at := int64(0)
	for _, h := range append(slices.Clone(f.Holes), [2]int64{f.Size, 0}) {
		if _, err := out.WriteAt(b[at:h[0]], at); err != nil {
			return err
		}
		at = h[0] + h[1]
	}
	return out.Close()
}
