// Package chainmaker makes real backup chains: it drives libvirt and QEMU, as an
// operator's backup job would, and says what the disk held at every point.
//
// A [Host] is libvirt's own QEMU driver, private to one folder, so that making a
// chain neither needs nor disturbs a libvirtd of the machine; root is not
// needed. The guest is paused throughout and its writes come through the
// monitor, so between two of them nothing moves and the truth is exact.
package chainmaker

import (
	"fmt"
	"slices"
)

// Tools are the programs that Make runs; a test that calls it needs them all.
func Tools() []string { return []string{"virsh", "qemu-img", "qemu-system-x86_64"} }

// Spec says what chain to make. The zero value is a full backup and six
// increments of one odd-sized disk, all as libvirt's push mode writes them.
type Spec struct {
	Seed   uint64
	Domain string // name of the domain; "" means one that is unique

	Sizes            []int64 // of each disk in bytes, multiples of 512; nil means one of 24 MiB + 512
	SourceCluster    int64   // cluster size of the live images; 0 means 64 KiB
	SourceExtendedL2 bool    // the live images have subclusters; SourceCluster is 16 KiB or more

	Increments int      // how many follow the full; 0 means 6
	Writes     int      // guest operations before each increment, and twice that before the full; 0 means 10
	Full       Target   // what the full backup is written to
	Targets    []Target // increment i (from 1) is written to Targets[(i-1) % len]; nil means plain push

	// Resize gives disk vda another size before the writes of an increment,
	// counted from 1. A shrink also cuts the interval bitmaps made before it.
	Resize map[int]int64

	KeepTruth bool // leave the true bytes of every point beside the chain
	PushTruth bool // take the truth a second time, by a full raw push, and fail where they differ
}

// Backing says what lies below the file that an increment is written to.
type Backing int

const (
	BackingNamed    Backing = iota // the live source, and the header names it: what libvirt does by itself
	BackingAttached                // the live source while it is written; the header names nothing
	BackingNone                    // nothing, as tools do that drive QEMU themselves
)

// Target describes the file that a backup is written to. The zero value lets
// libvirt make it: qcow2 v3 with clusters of 64 KiB.
type Target struct {
	Format      string // "qcow2", which "" means too, or "raw"
	ClusterSize int64  // 0 means QEMU's default
	Compat      string // "1.1", which "" means too, or "0.10"
	ExtendedL2  bool
	Compression string // "zlib" or "zstd" writes compressed clusters
	Backing     Backing
}

// Lossy reports whether an increment in such a file cannot tell a range that
// became zero from one that did not change.
func (t Target) Lossy() bool {
	return t.raw() || t.Compat == "0.10" && t.Backing == BackingNone
}

func (t Target) raw() bool { return t.Format == "raw" }

// plain reports whether libvirt makes the file itself.
func (t Target) plain() bool { return t == Target{Format: t.Format} }

// direct reports whether only QEMU's own command can write it: libvirt neither
// compresses nor leaves out the backing file.
func (t Target) direct(full bool) bool {
	return t.Compression != "" || t.Backing == BackingNone && !full && !t.raw()
}

func (t Target) format() string {
	if t.raw() {
		return "raw"
	}
	return "qcow2"
}

func (t Target) validate() error {
	if t.raw() && !t.plain() {
		return fmt.Errorf("raw target takes no options, has %+v", t)
	}
	if !slices.Contains([]string{"", "qcow2", "raw"}, t.Format) {
		return fmt.Errorf("target format is neither qcow2 nor raw: %q", t.Format)
	}
	if t.Compat == "0.10" && (t.ExtendedL2 || t.Compression == "zstd") {
		return fmt.Errorf("target of compat 0.10 has neither extended L2 nor zstd: %+v", t)
	}
	return nil
}

// withDefaults fills in what was left out and checks the rest.
func (s Spec) withDefaults() (Spec, error) {
	if s.Sizes == nil {
		s.Sizes = []int64{24<<20 + 512}
	}
	s.SourceCluster = or(s.SourceCluster, 64<<10)
	s.Increments = or(s.Increments, 6)
	s.Writes = or(s.Writes, 10)
	if s.Targets == nil {
		s.Targets = []Target{{}}
	}
	return s, s.validate()
}

func (s Spec) validate() error {
	sizes := slices.Clone(s.Sizes)
	for i, size := range s.Resize {
		if i < 1 || i > s.Increments {
			return fmt.Errorf("resize before increment %d of %d", i, s.Increments)
		}
		sizes = append(sizes, size)
	}
	for _, size := range sizes {
		if size < 1<<20 || size%512 != 0 {
			return fmt.Errorf("disk size is at least 1 MiB and a multiple of 512, not %d", size)
		}
	}
	for _, t := range append([]Target{s.Full}, s.Targets...) {
		if err := t.validate(); err != nil {
			return err
		}
	}
	return nil
}

// target is what point i is written to; point 0 is the full backup.
func (s Spec) target(i int) Target {
	if i == 0 {
		return s.Full
	}
	return s.Targets[(i-1)%len(s.Targets)]
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
