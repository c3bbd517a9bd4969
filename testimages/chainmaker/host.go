package chainmaker

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A Host is a libvirt QEMU driver whose settings, state and logs all lie in one
// folder. It belongs to one goroutine.
type Host struct {
	dir     string
	virsh   *session
	domains []string // defined and not yet gone
}

// qemuConf makes the private driver run QEMU as whoever runs us, without
// daemons, labels or cgroups.
const qemuConf = `stdio_handler = "file"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
`

// Start opens a private libvirt in dir, an absolute path that it creates. The
// first domain of a Host takes some seconds, in which libvirt asks QEMU what it can do.
func Start(ctx context.Context, dir string) (*Host, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("start libvirt: folder is not absolute: %s", dir)
	}
	if err := os.MkdirAll(filepath.Join(dir, "etc"), 0o755); err != nil {
		return nil, fmt.Errorf("start libvirt: %w", err)
	}
	conf := qemuConf
	if os.Geteuid() == 0 {
		conf += "user = \"root\"\ngroup = \"root\"\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "etc", "qemu.conf"), []byte(conf), 0o644); err != nil {
		return nil, fmt.Errorf("start libvirt: %w", err)
	}
	uri := "qemu:///embed?root=" + url.QueryEscape(dir)
	virsh, err := startSession(uri, filepath.Join(dir, "libvirt.log"))
	if err != nil {
		return nil, fmt.Errorf("start libvirt: %w", err)
	}
	h := &Host{dir: dir, virsh: virsh}
	if _, err := h.Virsh(ctx, "uri"); err != nil {
		return nil, errors.Join(fmt.Errorf("start libvirt: %w", err), h.Close())
	}
	return h, nil
}

// Virsh runs one virsh command, without a shell, and returns what it printed.
func (h *Host) Virsh(ctx context.Context, args ...string) (string, error) {
	return h.virsh.run(ctx, args...)
}

// Close ends every domain that is still there, and libvirt.
func (h *Host) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	for len(h.domains) > 0 {
		errs = append(errs, h.remove(ctx, h.domains[0]))
	}
	return errors.Join(append(errs, h.virsh.close())...)
}

// remove forgets a domain, killing it if it runs.
func (h *Host) remove(ctx context.Context, name string) error {
	rest := h.domains[:0]
	for _, d := range h.domains {
		if d != name {
			rest = append(rest, d)
		}
	}
	h.domains = rest
	if state, err := h.Virsh(ctx, "domstate", name); err == nil && !strings.Contains(state, "shut off") {
		if _, err := h.Virsh(ctx, "destroy", name); err != nil {
			return err
		}
	}
	_, err := h.Virsh(ctx, "undefine", name, "--checkpoints-metadata")
	return err
}
