package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/pierrec/lz4/v4"
)

// A streamCase is a folder as virtnbdbackup leaves it: a full backup and three
// increments of one disk.
type streamCase struct {
	name string
	lz4  bool
}

// streamData is how much the full backup and the increments hold.
const streamData = 4 * gib

// streamExtent bounds extents; from 32 MiB on the tool writes them in parts.
const streamExtent = 31 * mib

// aside is behind the names of the checksum files while no command is to see them, and
// sumName that of the command that does.
const (
	aside   = ".chksum.aside"
	sumName = "qbit restore, .chksum compared"
)

// showSums gives the checksum files the names by which they are found, or takes those
// away.
func showSums(folder string, show bool) error {
	from, to := ".chksum", aside
	if show {
		from, to = to, from
	}
	files, err := filepath.Glob(filepath.Join(folder, "*"+from))
	for _, f := range files {
		err = errors.Join(err, os.Rename(f, strings.TrimSuffix(f, from)+to))
	}
	return err
}

// runStreams times restoring and verifying backups of virtnbdbackup.
func runStreams(s settings) error {
	if _, err := exec.LookPath("virtnbdrestore"); err != nil {
		return err
	}
	for _, c := range []streamCase{{"virtnbdbackup, 4 GiB of data, plain", false}, {"virtnbdbackup, 4 GiB of data, LZ4", true}} {
		if err := c.run(s); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func (c streamCase) run(s settings) error {
	return inFolder(s, func(s settings) error {
		dir := s.dir
		folder, theirs := filepath.Join(dir, "backup"), filepath.Join(dir, "theirs")
		files, err := c.make(folder, s.scale)
		if err != nil {
			return err
		}
		own := writers{dir}.add("qbit restore", s.qbit, "restore", "-q", "-O", "qcow2", folder, "-o")
		peer := &contestant{name: "virtnbdrestore", output: filepath.Join(theirs, "disk.qcow2"),
			args: []string{"virtnbdrestore", "-n", "-U", "test:///default", "-L", filepath.Join(dir, "log"), "-i", folder, "-o", theirs}}
		peer.rounds = 2 // it takes long
		summed := *own
		summed.name, summed.output = sumName, filepath.Join(dir, "out of summed")
		summed.args = append(own.args[:len(own.args)-1:len(own.args)-1], summed.output)
		restore := race{title: c.name, writes: s.part(streamData, 0), runs: []*contestant{own, peer, &summed, writers{dir}.copies(own.output)[0]},
			note: "`virtnbdrestore` does not look at the checksum files that the backup has beside it; `qbit restore` does, where there are any, and is measured without them and with them.", wants: []want{timesAsFast(5, "virtnbdrestore")},
			before: func(r *contestant) error {
				return errors.Join(showSums(folder, r.name == sumName), c.before(r, peer, theirs))
			}, same: sameDisk}
		if err := restore.run(s); err != nil {
			return err
		}
		if err := showSums(folder, true); err != nil {
			return err
		}
		return verifyRace(s, c.name+", only read", folder, files).run(s)
	})
}

// verifyRace verifies the backups in a folder, beside programs that do no more than read
// the same files: one after the other, and as many at once as there are processors.
func verifyRace(s settings, title, folder string, files []string) *race {
	half := fmt.Sprintf("cat, %d at once", runtime.NumCPU())
	each := fmt.Sprintf(`printf '%%s\0' "$@" | xargs -0 -n1 -P%d cat >/dev/null`, runtime.NumCPU())
	return &race{title: title, wants: []want{atMost(1.25, "cat")}, runs: []*contestant{
		{name: "qbit verify", args: []string{s.qbit, "verify", "-q", folder}},
		{name: "cat", args: append([]string{"sh", "-c", `cat "$@" >/dev/null`, "sh"}, files...)},
		{name: half, args: append([]string{"sh", "-c", each, "sh"}, files...)},
	}}
}

// before gives virtnbdrestore the empty folder that it wants.
func (c streamCase) before(r, peer *contestant, theirs string) error {
	if r != peer {
		return nil
	}
	if err := os.RemoveAll(theirs); err != nil {
		return err
	}
	return os.Mkdir(theirs, 0o777)
}

// make writes the folder and returns its streams. virtnbdrestore goes by the times
// of the files, so they have to be in order.
func (c streamCase) make(folder string, scale int64) ([]string, error) {
	if err := os.Mkdir(folder, 0o777); err != nil {
		return nil, err
	}
	size, full, inc := int64(8*gib), streamData*3/4*scale/100, streamData/4/3*scale/100
	var files []string
	for i := range 4 {
		name, parent, amount := "vda.full.data", "", full
		if i > 0 {
			name, parent, amount = fmt.Sprintf("vda.inc.virtnbdbackup.%d.data", i), fmt.Sprintf("virtnbdbackup.%d", i-1), inc
		}
		path := filepath.Join(folder, name)
		if err := c.stream(path, fmt.Sprintf("virtnbdbackup.%d", i), parent, size, amount, uint64(i)); err != nil {
			return nil, err
		}
		at := time.Date(2026, 1, 1+i, 0, 0, 0, 0, time.UTC)
		if err := os.Chtimes(path, at, at); err != nil {
			return nil, err
		}
		info := fmt.Sprintf(`{"virtual-size": %d, "filename": "/x/disk.qcow2", "cluster-size": 65536, "format": "qcow2", "actual-size": 0, "format-specific": {"type": "qcow2", "data": {"compat": "1.1", "lazy-refcounts": false, "refcount-bits": 16, "corrupt": false, "extended-l2": false}}, "dirty-flag": false}`, size)
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("vda.virtnbdbackup.%d.qcow.json", i)), []byte(info), 0o666); err != nil {
			return nil, err
		}
		files = append(files, path)
	}
	domain := `<domain type='qemu'><name>bench</name><memory>1</memory><os><type>hvm</type></os><devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/x/disk.qcow2'/><target dev='vda' bus='virtio'/></disk></devices></domain>`
	return files, os.WriteFile(filepath.Join(folder, "vmconfig.virtnbdbackup.0.xml"), []byte(domain), 0o666)
}

// stream writes one backup: extents of 1 to 32 MiB, one after the other with gaps
// between them.
func (c streamCase) stream(path, checkpoint, parent string, size, amount int64, seed uint64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := adler32.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, sum), 1<<20)
	level := "false"
	if c.lz4 {
		level = "2"
	}
	meta := fmt.Sprintf(`{"virtualSize": %d, "dataSize": %d, "date": "2026-01-0%dT00:00:00", "diskName": "vda", "diskFormat": "qcow2", "checkpointName": %q, "compressed": %s, "compressionMethod": "lz4", "parentCheckpoint": %q, "incremental": %t, "streamVersion": 2}`,
		size, amount, seed+1, checkpoint, level, parent, parent != "")
	fmt.Fprintf(w, "meta %016x %016x\r\n%s\r\n", 0, len(meta), meta)
	rng := rand.New(rand.NewPCG(seed, 1))
	gap := (size - amount) / max(1, amount/(8*mib)) / 2
	buf := make([]byte, streamExtent)
	var sizes []string
	for off := int64(0); amount > 0; {
		n := min((1+rng.Int64N(streamExtent/mib))*mib, amount)
		fillHalf(buf[:n], rng)
		fmt.Fprintf(w, "data %016x %016x\r\n", off, n)
		stored, err := c.payload(w, buf[:n])
		if err != nil {
			return err
		}
		sizes = append(sizes, fmt.Sprint(stored))
		io.WriteString(w, "\r\n")
		off, amount = off+n+gap/(64*kib)*(64*kib), amount-n
	}
	fmt.Fprintf(w, "stop %016x %016x\r\n", 0, 0)
	if c.lz4 {
		list := "[" + strings.Join(sizes, ", ") + "]"
		fmt.Fprintf(w, "%s\r\ncomp %016x %016x\r\n", list, 0, len(list))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return os.WriteFile(path+aside, fmt.Append(nil, sum.Sum32()), 0o666)
}

// payload writes an extent, compressed as python-lz4 does at its defaults, and
// returns its length in the file.
func (c streamCase) payload(w io.Writer, p []byte) (int, error) {
	if !c.lz4 {
		return w.Write(p)
	}
	var b bytes.Buffer
	z := lz4.NewWriter(&b)
	if err := z.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false), lz4.ConcurrencyOption(1)); err != nil {
		return 0, err
	}
	if _, err := z.Write(p); err != nil {
		return 0, err
	}
	if err := z.Close(); err != nil {
		return 0, err
	}
	return w.Write(b.Bytes())
}

// fillHalf fills p with bytes of which half are noise, in runs, as in the files of a
// guest.
func fillHalf(p []byte, rng *rand.Rand) {
	for i := 0; i+64 <= len(p); i += 64 {
		a, b := rng.Uint64(), rng.Uint64()
		for j := 0; j < 32; j += 8 {
			binary.LittleEndian.PutUint64(p[i+j:], a*uint64(j+3)^b>>uint(j))
			binary.LittleEndian.PutUint64(p[i+32+j:], 0x6f66206c75663d20)
		}
	}
}
