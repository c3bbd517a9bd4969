package qcow2

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// RepairMode says what a repair may change.
type RepairMode string

const (
	// RepairLeaks gives back clusters that nothing refers to.
	RepairLeaks RepairMode = "leaks"
	// RepairAll mends whatever can be mended without guessing.
	RepairAll RepairMode = "all"
	// RepairBitmaps drops or mends what is broken in bitmaps, and nothing else.
	RepairBitmaps RepairMode = "bitmaps"
)

// ErrCannotRepair reports an image that a repair could only make worse.
var ErrCannotRepair = errors.New("this cannot be repaired in place; copy out what can be read instead")

// ErrBrokenSnapshots is an ErrCannotRepair: without its snapshots the image could be
// repaired; RepairOptions.DropSnapshots has to say so.
var ErrBrokenSnapshots = fmt.Errorf("without the snapshots it could be mended, but they may hold what is wanted: %w", ErrCannotRepair)

// errOverlaps: what is written to the one is read as the other.
var errOverlaps = fmt.Errorf("clusters have two uses, and correcting the one would change the other; only mending everything at once parts them: %w", ErrCannotRepair)

// RepairOptions bounds a repair.
type RepairOptions struct {
	Mode RepairMode
	// DropSnapshots lets RepairAll give up all snapshots, where the snapshot table or
	// the place of a snapshot's L1 table is broken. Nothing else ever gives up guest
	// bytes that can be read.
	DropSnapshots bool
	// Memory is how many bytes the repair may use to count the references of all
	// clusters at once, and again for what it changes; 0 means 512 MiB, enough for
	// a file of 100 million clusters.
	Memory int64
}

const defaultRepairMemory = 512 << 20

// maxLeft is how many findings and ranges a Repair tells.
const maxLeft = 1000

// A GuestRange is bytes of a disk: of a snapshot, or "" for the active one.
type GuestRange struct {
	Snapshot string
	Off, Len int64
}

// A Repair is what a repair would do. Nothing was written yet.
type Repair struct {
	Mode          RepairMode
	Before, After *CheckResult
	Done          []string     // what it does, for people
	Lost          []GuestRange // could not be read before, and reads as zero or as the backing file after
	Left          []Finding    // what stays wrong
	Phases        []Phase      // what Apply writes
}

// PlanRepair plans the repair of the image in r, a file of size bytes. It only reads:
// all is done in memory, and looked at there, before Apply writes any of it.
//
// Errors: those of Open; ErrCannotRepair; what could not be read; too little memory.
func PlanRepair(ctx context.Context, r io.ReaderAt, size int64, open *Options, opts RepairOptions) (*Repair, error) {
	if opts.Memory <= 0 {
		opts.Memory = defaultRepairMemory
	}
	p := &planner{ctx: ctx, o: newOverlay(r, size, opts.Memory), opts: opts, done: map[string]bool{}}
	if open != nil {
		p.open = *open
	}
	p.Mode = opts.Mode
	if err := p.plan(); err != nil {
		return nil, err
	}
	p.Phases = p.o.phases
	return &p.Repair, nil
}

// A planner makes a Repair.
type planner struct {
	Repair
	ctx  context.Context
	o    *overlay
	open Options
	opts RepairOptions
	img  *Image
	done map[string]bool

	kind    map[FindingKind]int64 // what the check before found
	refused error                 // why the image cannot be repaired
}

func (p *planner) plan() error {
	if err := p.before(); err != nil {
		return err
	}
	var err error
	switch p.Mode {
	case RepairLeaks:
		err = p.repairLeaks()
	case RepairBitmaps:
		err = p.repairBitmaps()
	case RepairAll:
		err = p.repairAll()
	default:
		err = fmt.Errorf("there is no repair %q", p.Mode)
	}
	if err != nil {
		return err
	}
	return p.after()
}

// reopen opens the image as the repair so far leaves it.
func (p *planner) reopen() error {
	var err error
	p.img, err = Open(p.o, p.o.size, &p.open)
	return err
}

// before checks the image and refuses what only a guess could mend.
func (p *planner) before() error {
	var err error
	if p.Before, err = p.look(); err != nil {
		return err
	}
	if p.refused != nil && p.kind[FindSnapshotTable] > 0 && p.dropsSnapshots() {
		if err := p.dropSnapshots(); err != nil {
			return err
		}
		if _, err := p.look(); err != nil {
			return err
		}
	}
	return p.refused
}

// dropsSnapshots says whether snapshots may be given up.
func (p *planner) dropsSnapshots() bool { return p.opts.DropSnapshots && p.Mode == RepairAll }

// look checks the image as the repair so far leaves it, and notes what is wrong.
func (p *planner) look() (*CheckResult, error) {
	if err := p.reopen(); err != nil {
		return nil, err
	}
	p.kind, p.refused = map[FindingKind]int64{}, nil
	res, err := p.img.Check(p.ctx, nil, func(f Finding) error {
		p.kind[f.Kind]++
		if p.refused == nil {
			p.refused = refusal(f)
		}
		if p.dropsSnapshots() {
			return nil // the rest may be wrong because of the snapshots
		}
		return p.refused
	})
	if p.refused != nil && !p.dropsSnapshots() {
		return nil, p.refused
	}
	return res, err
}

// refusal says why an image with that finding cannot be repaired, or is nil.
func refusal(f Finding) error {
	why := ErrCannotRepair
	switch f.Kind {
	case FindUnreadable, FindTablesOverlap, FindEncryption:
	case FindSnapshotTable:
		why = ErrBrokenSnapshots
	default:
		return nil
	}
	return fmt.Errorf("%s %s at %s is %s: %w", f.Structure, f.Field, f.Host, f.Found, why)
}

// dropSnapshots takes the snapshot table out of the header, in one sector. What only
// the snapshots referred to is a leak from then on.
func (p *planner) dropSnapshots() error {
	p.say("gives up all snapshots (%d in the header), since their table is broken", p.img.header.NbSnapshots)
	if err := writeFull(p.o, make([]byte, 12), 60); err != nil { // nb_snapshots, snapshots_offset
		return err
	}
	return p.o.Sync()
}

// after checks the image as the repair leaves it.
func (p *planner) after() error {
	if err := p.reopen(); err != nil {
		return fmt.Errorf("checking the repair: %w", err)
	}
	var err error
	p.After, err = p.img.Check(p.ctx, nil, func(f Finding) error {
		if f.Severity != SeverityNotice && len(p.Left) < maxLeft {
			p.Left = append(p.Left, f)
		}
		return nil
	})
	return err
}

// say notes what is done, once.
func (p *planner) say(format string, args ...any) {
	if s := fmt.Sprintf(format, args...); !p.done[s] {
		p.done[s] = true
		p.Done = append(p.Done, s)
	}
}

// lose notes guest bytes that are lost.
func (p *planner) lose(snapshot string, off, n int64) {
	if n <= 0 {
		return
	}
	if i := len(p.Lost) - 1; i >= 0 && p.Lost[i].Snapshot == snapshot && p.Lost[i].Off+p.Lost[i].Len == off {
		p.Lost[i].Len += n
		return
	}
	if len(p.Lost) < maxLeft {
		p.Lost = append(p.Lost, GuestRange{snapshot, off, n})
	}
}

// repairLeaks lowers refcounts. A reference that is broken may lead to what shows up as
// a leak.
func (p *planner) repairLeaks() error {
	if p.Before.Incomplete {
		return fmt.Errorf("a reference is broken, and what looks like leaks may belong to it; mend everything at once, or copy the disk first: %w", ErrCannotRepair)
	}
	if p.kind[FindOverlap] > 0 {
		return errOverlaps
	}
	if p.Before.Leaks == 0 {
		return nil
	}
	refs, err := p.count(p.img, true)
	if err != nil {
		return err
	}
	if err := p.lower(refs); err != nil {
		return err
	}
	return p.copiedBits()
}

// repairAll mends in this order: what makes QEMU refuse the image; references; refcounts
// (raised before, lowered after); copied bits; the bits of the header; bitmaps.
func (p *planner) repairAll() error {
	if p.brokenBitmaps() {
		if err := p.dropBitmaps(); err != nil {
			return err
		}
	}
	if err := p.wholeClusters(); err != nil {
		return err
	}
	if err := p.mendReferences(); err != nil {
		return err
	}
	if err := p.copiedBits(); err != nil {
		return err
	}
	if err := p.clearBits(); err != nil {
		return err
	}
	return p.mendBitmaps()
}

// wholeClusters makes the file end with a whole cluster where its last one is cut and
// something is in it that is read. The rest reads as zero, as QEMU has it.
func (p *planner) wholeClusters() error {
	whole := alignUp(p.o.size, p.img.geometry.ClusterSize())
	if whole == p.o.size || p.kind[FindBeyondEnd] == 0 {
		return nil
	}
	p.say("makes the file end with a whole cluster; the last %d bytes read as zero", whole-p.o.size)
	if err := p.o.Truncate(whole); err != nil {
		return err
	}
	if err := p.o.Sync(); err != nil {
		return err
	}
	return p.reopen()
}

// clearBits clears the dirty and the corrupt bit, if nothing is wrong any more.
func (p *planner) clearBits() error {
	if err := p.reopen(); err != nil {
		return err
	}
	bits := p.img.header.IncompatibleFeatures
	if bits&(IncompatDirty|IncompatCorrupt) == 0 {
		return nil
	}
	res, err := p.img.Check(p.ctx, nil, func(f Finding) error { return nil })
	if err != nil || res.CheckErrors+res.Corruptions > 0 && !p.onlyBitmaps() {
		return err
	}
	p.say("clears the dirty and corrupt bits of the header")
	if err := p.putWord(72, bits&^(IncompatDirty|IncompatCorrupt)); err != nil {
		return err
	}
	if err := p.o.Sync(); err != nil {
		return err
	}
	return p.reopen()
}

// copiedBits makes the copied bits say what the refcounts say. A clear bit is set only
// when the refcount is 1 on the disk.
func (p *planner) copiedBits() error {
	if err := p.reopen(); err != nil {
		return err
	}
	var wrong []HostOffset
	_, err := p.img.Check(p.ctx, nil, func(f Finding) error {
		if f.Kind == FindCopied {
			wrong = append(wrong, f.Host)
		}
		return nil
	})
	if err != nil || len(wrong) == 0 {
		return err
	}
	seen := map[HostOffset]bool{}
	for _, host := range wrong {
		if seen[host] {
			continue
		}
		seen[host] = true
		word, err := p.word(host)
		if err != nil {
			return err
		}
		if err := p.putWord(host, word^entryCopied); err != nil {
			return err
		}
	}
	p.say("corrects the copied bits of table entries")
	return p.o.Sync()
}
