package chainmaker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
)

// takeTruth records the disk's bytes of this moment. The domain is paused and
// was flushed, so the image file holds everything; nothing writes to it meanwhile.
func (m *maker) takeTruth(ctx context.Context, d *liveDisk, p *Point) error {
	path := m.path(fmt.Sprintf("%struth%d.raw", d.prefix(), m.point))
	if _, err := qemuImg(ctx, "convert", "-U", "-f", "qcow2", "-O", "raw", d.Source, path); err != nil {
		return err
	}
	sum, size, err := digest(path)
	if err != nil {
		return err
	}
	if size != d.size {
		return fmt.Errorf("truth of %s at point %d has %d bytes, the disk %d", d.Target, m.point, size, d.size)
	}
	p.SHA256, p.Size, p.Truth = sum, size, path
	if m.spec.KeepTruth {
		return nil
	}
	p.Truth = ""
	return os.Remove(path)
}

// checkTruth has libvirt push the same moment as a full raw backup and compares.
func (m *maker) checkTruth(ctx context.Context, d *liveDisk, p *Point) error {
	path := m.path(d.prefix() + "second-truth.raw")
	defer os.Remove(path)
	only := map[string]string{d.Target: path}
	if _, err := m.push(ctx, pushJob{name: "truth", files: only, format: "raw"}); err != nil {
		return err
	}
	sum, _, err := digest(path)
	if err == nil && sum != p.SHA256 {
		err = fmt.Errorf("point %d of %s: a full push has sha256 %s, the flushed source %s", m.point, d.Target, sum, p.SHA256)
	}
	return err
}

func digest(path string) (string, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), n, err
}
