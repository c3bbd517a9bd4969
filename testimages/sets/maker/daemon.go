// Package maker makes the frozen sets of package sets anew, with the real
// virtnbdbackup, libvirt and QEMU of the machine. See scripts/freeze-images.
//
// virtnbdbackup opens libvirt from a process of its own, so the embedded driver
// that package chainmaker uses will not do. A [Daemon] is libvirt's session
// daemon instead, for a user without rights: all its settings, sockets and state
// lie in one folder, and it neither needs nor disturbs the machine's own.
package maker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Tools are the programs that making sets needs.
func Tools() []string {
	return []string{"libvirtd", "virsh", "qemu-img", "qemu-io", "qemu-system-x86_64", "virtnbdbackup"}
}

// URI is how the tools reach a Daemon; they must run through [Daemon.Run].
const URI = "qemu:///session"

// qemuConf keeps QEMU free of labels, control groups and log daemons.
const qemuConf = `stdio_handler = "file"
security_driver = "none"
cgroup_controllers = []
namespaces = []
`

// A Daemon is a private libvirtd. It belongs to one goroutine.
type Daemon struct {
	dir string
	cmd *exec.Cmd
}

// Start runs libvirtd in dir, which must be empty and be reached by anyone.
// Root runs it as the user nobody: for root there is no session daemon.
func Start(ctx context.Context, dir string) (*Daemon, error) {
	d := &Daemon{dir: dir}
	if err := d.prepare(); err != nil {
		return nil, fmt.Errorf("start libvirtd: %w", err)
	}
	d.cmd = d.command(context.Background(), "libvirtd")
	log, err := os.Create(filepath.Join(dir, "libvirtd.log"))
	if err != nil {
		return nil, fmt.Errorf("start libvirtd: %w", err)
	}
	defer log.Close()
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start libvirtd: %w", err)
	}
	if err := d.await(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start libvirtd: %w", err), d.Close())
	}
	return d, nil
}

func (d *Daemon) prepare() error {
	for _, sub := range []string{"run", "conf/libvirt", "cache", "data", "home"} {
		if err := os.MkdirAll(filepath.Join(d.dir, sub), 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(d.dir, "conf", "libvirt", "qemu.conf"), []byte(qemuConf), 0o600); err != nil {
		return err
	}
	return give(d.dir)
}

// command is a program as the daemon's user, with nothing of our environment.
func (d *Daemon) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "TZ=UTC",
		"HOME=" + filepath.Join(d.dir, "home"),
		"XDG_RUNTIME_DIR=" + filepath.Join(d.dir, "run"),
		"XDG_CONFIG_HOME=" + filepath.Join(d.dir, "conf"),
		"XDG_CACHE_HOME=" + filepath.Join(d.dir, "cache"),
		"XDG_DATA_HOME=" + filepath.Join(d.dir, "data"),
	}
	asUser(cmd)
	return cmd
}

// Run runs a program to its end in dir, "" for anywhere, and returns its standard
// output; an error carries what it said.
func (d *Daemon) Run(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := d.command(ctx, name, args...)
	cmd.Dir = dir
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s %q: %w: %s", name, args, err, strings.TrimSpace(said.String()))
	}
	return out, nil
}

// Virsh runs one virsh command.
func (d *Daemon) Virsh(ctx context.Context, args ...string) (string, error) {
	out, err := d.Run(ctx, "", "virsh", append([]string{"-q", "-c", URI}, args...)...)
	return strings.TrimSpace(string(out)), err
}

// await asks until the daemon answers.
func (d *Daemon) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	socket := filepath.Join(d.dir, "run", "libvirt", "libvirt-sock")
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(socket); err == nil {
			_, err = d.Virsh(ctx, "uri")
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("no socket %s: %w", socket, ctx.Err())
		}
	}
}

// Close ends the daemon. Its domains must be gone.
func (d *Daemon) Close() error {
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	d.cmd.Wait() // libvirtd's own status says nothing of use
	return nil
}
