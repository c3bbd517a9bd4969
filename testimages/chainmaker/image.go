package chainmaker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// qemuImg runs qemu-img; an error carries what it said.
func qemuImg(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "qemu-img", args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("qemu-img %s: %w: %s", args[0], err, strings.TrimSpace(said.String()))
	}
	return out, nil
}

// createQcow2 makes an empty image; backing may be empty.
func createQcow2(ctx context.Context, path string, size int64, options []string, backing string) error {
	args := []string{"create", "-q", "-f", "qcow2"}
	if len(options) > 0 {
		args = append(args, "-o", strings.Join(options, ","))
	}
	if backing != "" {
		args = append(args, "-u", "-F", "qcow2", "-b", backing)
	}
	_, err := qemuImg(ctx, append(args, path, strconv.FormatInt(size, 10))...)
	return err
}

// imageInfo is the part of qemu-img info that we look at.
type imageInfo struct {
	VirtualSize int64  `json:"virtual-size"`
	Backing     string `json:"backing-filename"`
	Specific    struct {
		Data struct {
			Bitmaps []struct {
				Name  string
				Flags []string
			}
		}
	} `json:"format-specific"`
}

func info(ctx context.Context, path, format string) (*imageInfo, error) {
	out, err := qemuImg(ctx, "info", "-U", "-f", format, "--output=json", path)
	if err != nil {
		return nil, err
	}
	var i imageInfo
	return &i, json.Unmarshal(out, &i)
}

// options are what qemu-img create needs for the target.
func (t Target) options() []string {
	var o []string
	if t.ClusterSize != 0 {
		o = append(o, fmt.Sprintf("cluster_size=%d", t.ClusterSize))
	}
	if t.Compat != "" {
		o = append(o, "compat="+t.Compat)
	}
	if t.ExtendedL2 {
		o = append(o, "extended_l2=on")
	}
	if t.Compression == "zstd" {
		o = append(o, "compression_type=zstd")
	}
	return o
}

// versions are those of the tools that made the chain. The running QEMU is asked
// itself: virsh's "version" would have libvirt probe every emulator again.
func (m *maker) versions(ctx context.Context) error {
	out, err := qemuImg(ctx, "--version")
	if err != nil {
		return err
	}
	line, _, _ := strings.Cut(string(out), "\n")
	libvirt, err := exec.CommandContext(ctx, "virsh", "--version").Output()
	if err != nil {
		return fmt.Errorf("virsh --version: %w", err)
	}
	var qemu struct {
		QEMU    struct{ Major, Minor, Micro int }
		Package string
	}
	if err := m.qmp(ctx, "query-version", nil, &qemu); err != nil {
		return err
	}
	m.chain.Tools = map[string]string{
		"qemu-img": line,
		"libvirt":  strings.TrimSpace(string(libvirt)),
		"qemu":     fmt.Sprintf("%d.%d.%d %s", qemu.QEMU.Major, qemu.QEMU.Minor, qemu.QEMU.Micro, qemu.Package),
	}
	return nil
}
