package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/klauspost/compress/zstd"
	"github.com/qbitkit/qbit/testimages/chainmaker"
)

// A file is one frozen file. Its holes are kept apart from its bytes: in a raw
// increment a hole says something that zeroes do not.
type file struct {
	Name   string     `json:"name"`
	Stored string     `json:"stored"` // with .zst: compressed
	Size   int64      `json:"size"`
	SHA256 string     `json:"sha256"`
	Holes  [][2]int64 `json:"holes,omitempty"` // offset and length
}

// An opinion is what QEMU says of one file by itself.
type opinion struct {
	Info  json.RawMessage `json:"info"`
	Map   json.RawMessage `json:"map"` // of this layer alone
	Check json.RawMessage `json:"check,omitempty"`
}

func storeFile(ctx context.Context, to, path string, plain bool) (file, opinion, error) {
	f := file{Name: filepath.Base(path)}
	var err error
	if f.Holes, err = holes(path); err != nil {
		return f, opinion{}, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return f, opinion{}, err
	}
	sum := sha256.Sum256(b)
	f.Size, f.SHA256, f.Stored = int64(len(b)), hex.EncodeToString(sum[:]), f.Name
	if !plain {
		f.Stored += ".zst"
		if b, err = compress(b); err != nil {
			return f, opinion{}, err
		}
	}
	if err := os.WriteFile(filepath.Join(to, f.Stored), b, 0o644); err != nil {
		return f, opinion{}, err
	}
	o, err := ask(ctx, path)
	return f, o, err
}

func compress(b []byte) ([]byte, error) {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(8<<20))
	if err != nil {
		return nil, err
	}
	return w.EncodeAll(b, nil), w.Close()
}

// Linux's whence values for os.File.Seek.
const (
	seekData = 3
	seekHole = 4
)

// holes asks the filesystem, after a sync: delayed allocation may still show
// a hole where bytes are on their way.
func holes(path string) ([][2]int64, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var out [][2]int64
	for off := int64(0); off < st.Size(); {
		data, err := f.Seek(off, seekData)
		if errors.Is(err, syscall.ENXIO) {
			data = st.Size()
		} else if err != nil {
			return nil, err
		}
		if data > off {
			out = append(out, [2]int64{off, data - off})
		}
		if data == st.Size() {
			break
		}
		if off, err = f.Seek(data, seekHole); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ask runs qemu-img where the file lies, so that no path gets into its answers.
func ask(ctx context.Context, path string) (o opinion, err error) {
	format := strings.TrimPrefix(filepath.Ext(path), ".")
	name := filepath.Base(path)
	dir := filepath.Dir(path)
	if o.Info, err = qemuImg(ctx, dir, "info", "-f", format, "--output=json", name); err != nil {
		return o, err
	}
	if format == "raw" {
		o.Map, err = qemuImg(ctx, dir, "map", "-f", "raw", "--output=json", name)
		return o, err
	}
	alone := fmt.Sprintf(`json:{"driver":"qcow2","backing":null,"file":{"driver":"file","filename":%q}}`, name)
	if o.Map, err = qemuImg(ctx, dir, "map", "--output=json", alone); err != nil {
		return o, err
	}
	o.Check, err = qemuImg(ctx, dir, "check", "-f", format, "--output=json", name)
	return o, err
}

func qemuImg(ctx context.Context, dir string, args ...string) (json.RawMessage, error) {
	cmd := exec.CommandContext(ctx, "qemu-img", args...)
	cmd.Dir = dir
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("qemu-img %q: %w: %s", args, err, said.Bytes())
	}
	return out, nil
}

// copyXML keeps the checkpoints and, where libvirt had one, the backup's XML.
func copyXML(to string, c *chainmaker.Chain) error {
	for _, p := range c.Disks[0].Points {
		for _, path := range []string{p.CheckpointXML, p.BackupXML} {
			if path == "" {
				continue
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(to, filepath.Base(path)), b, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeSums lists the truth as sha256sum does: point N restored as pointN.raw.
func writeSums(to string, c *chainmaker.Chain) error {
	var b bytes.Buffer
	for i, p := range c.Disks[0].Points {
		fmt.Fprintf(&b, "%s  point%d.raw\n", p.SHA256, i)
	}
	return os.WriteFile(filepath.Join(to, "SHA256"), b.Bytes(), 0o644)
}
