package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/qbitkit/qbit/testimages/interop"
)

// TestInteropBackupKill kills `qbit backup` of two disks with a checkpoint at random
// moments. After the next run of qbit backup on either disk, backups, documents and the
// bitmaps of both disks are there, or none of them.
func TestInteropBackupKill(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	kills := 10
	if os.Getenv("QBIT_FULL") == "1" {
		kills = 300
	}
	v := newBackupVictim(t)
	v.backup(nil, "cp0")
	for i := range kills {
		moment := time.Duration(v.rng.Int64N(int64(v.took)))
		v.backup(&moment, fmt.Sprintf("cp%d", i+1))
	}
	t.Logf("%d kills: %v", kills, v.seen)
}

// A backupVictim is a domain whose backups are killed.
type backupVictim struct {
	t    *testing.T
	dir  string
	out  string
	rng  *rand.Rand
	took time.Duration // by a run that was not killed
	seen map[string]int
}

func newBackupVictim(t *testing.T) *backupVictim {
	v := &backupVictim{t: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(9, 9)), seen: map[string]int{}}
	v.out = filepath.Join(v.dir, "out")
	var disks string
	for i, name := range []string{"vda", "vdb"} {
		path := v.disk(name)
		interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "4M")
		interop.Run(t, "qemu-io", "-c", fmt.Sprintf("write -P %d 1M 1M", i+1), path)
		disks += fmt.Sprintf("<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='%s'/><target dev='%s'/></disk>", path, name)
	}
	v.must(os.Mkdir(v.out, 0o777))
	v.must(os.WriteFile(v.domain(), []byte("<domain type='qemu'><name>vm</name><devices>"+disks+"</devices></domain>\n"), 0o666))
	return v
}

func (v *backupVictim) must(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
}

func (v *backupVictim) disk(target string) string { return filepath.Join(v.dir, target+".qcow2") }
func (v *backupVictim) domain() string            { return filepath.Join(v.dir, "vm.xml") }

// backup runs a backup, kills it, and has the next run clean up.
func (v *backupVictim) backup(kill *time.Duration, checkpoint string) {
	v.t.Helper()
	cmd := exec.Command("qbit", "backup", "-q", "--domain", v.domain(), "-o", v.out, "--checkpoint", checkpoint)
	started := time.Now()
	v.must(cmd.Start())
	if kill != nil {
		<-time.After(*kill)
		v.must(cmd.Process.Kill())
	}
	err := cmd.Wait()
	if kill == nil {
		v.must(err)
		v.took = time.Since(started)
	}
	v.judge(checkpoint, err)
}

func (v *backupVictim) judge(checkpoint string, ended error) {
	v.t.Helper()
	targets := []string{"vda", "vdb"}
	first := v.rng.IntN(2)
	said := v.next(targets[first]) + v.next(targets[1-first])
	have, lack := v.pieces(checkpoint)
	if len(have) > 0 && len(lack) > 0 {
		v.t.Fatalf("%s: there are %q, and there are not %q; the run ended with %v, the next said %s", checkpoint, have, lack, ended, said)
	}
	if ended == nil && len(lack) > 0 {
		v.t.Fatalf("%s: the run ended well, and there are not %q", checkpoint, lack)
	}
	v.count(said, len(have) > 0)
	for _, target := range []string{"vda", "vdb"} {
		interop.Run(v.t, "qemu-img", "check", "-q", "-r", "leaks", v.disk(target))
	}
}

// next is a run that follows, on one of the disks.
func (v *backupVictim) next(target string) string {
	v.t.Helper()
	_, said, status := qbit("backup", "-q", "--no-xml", "--force", "-O", "raw", v.disk(target), "-o", filepath.Join(v.dir, "again.raw"))
	if status != 0 {
		v.t.Fatalf("the next run, on %s, ended with status %d: %s", target, status, said)
	}
	return said
}

// count counts how it ended. A run that was killed before it had written a note left
// unfinished files, as every killed run does.
func (v *backupVictim) count(said string, there bool) {
	switch {
	case strings.Contains(said, "was finished"):
		v.seen["finished by the next run"]++
	case strings.Contains(said, "was undone"):
		v.seen["undone by the next run"]++
	case there:
		v.seen["complete"]++
	default:
		v.seen["not begun"]++
		found, _ := filepath.Glob(filepath.Join(v.out, ".*.partial"))
		for _, path := range found {
			v.must(os.Remove(path))
		}
	}
	for _, dir := range []string{v.dir, v.out} {
		if found, _ := filepath.Glob(filepath.Join(dir, ".*")); len(found) > 0 {
			v.t.Fatalf("%q was left; the next run said %s", found, said)
		}
	}
}

// pieces are what belongs to a checkpoint and its backup.
func (v *backupVictim) pieces(checkpoint string) (have, lack []string) {
	note := func(name string, there bool) {
		if there {
			have = append(have, name)
		} else {
			lack = append(lack, name)
		}
	}
	for _, target := range []string{"vda", "vdb"} {
		info := string(interop.Run(v.t, "qemu-img", "info", "--output=json", v.disk(target)))
		note("bitmap of "+target, strings.Contains(info, `"`+checkpoint+`"`))
		name := filepath.Join(v.out, target+".qcow2."+checkpoint)
		note(name, pathExists(name))
	}
	for _, name := range []string{checkpoint + ".xml", checkpoint + ".backup.xml"} {
		note(name, pathExists(filepath.Join(v.out, name)))
	}
	return have, lack
}
