package qcow2

import (
	"context"
	"errors"
	"io"
)

// CheckOptions bounds a check. The zero value is right for most images.
type CheckOptions struct {
	// Memory is how many bytes the check may use for what it has to remember of
	// host clusters and L2 tables; 0 means 64 MiB, less than 1 KiB counts as that.
	// An image with more clusters than that has room for is read several times:
	// see PlanCheck. A few slices of tables (256 KiB) come to it.
	Memory int64

	// Progress is told how much of the work is done, from 0 to total.
	Progress func(done, total int64)
}

const (
	defaultCheckMemory = 64 << 20
	minCheckMemory     = 1 << 10
)

func (o *CheckOptions) memory() int64 {
	if o == nil || o.Memory == 0 {
		return defaultCheckMemory
	}
	return max(o.Memory, minCheckMemory)
}

// A CheckPlan says what a check will cost.
type CheckPlan struct {
	Clusters int64 // of the image file
	Window   int64 // host clusters that one pass looks at
	Passes   int64 // at the most; passes over holes of the file are left out
	Memory   int64 // bytes, at the most
}

// PlanCheck says what Check will cost, before it reads anything.
func (img *Image) PlanCheck(opts *CheckOptions) CheckPlan {
	memory := opts.memory()
	p := CheckPlan{Clusters: img.fileClusters()}
	p.Window = memory * 3 / 4 * 8 / windowBits &^ 63
	p.Window = max(64, min(p.Window, alignUp(p.Clusters, 64)))
	p.Passes = max(1, (p.Clusters+p.Window-1)/p.Window)
	p.Memory = min(memory, p.Window*windowBits/8+memory/4)
	return p
}

// fileClusters is how many clusters the file has; the last one may be cut.
func (img *Image) fileClusters() int64 {
	return (img.size + img.geometry.ClusterSize() - 1) >> img.geometry.ClusterBits
}

// A CheckResult sums up a check. The fields of the first group are those of
// qemu-img check, with the same values.
type CheckResult struct {
	ImageEnd           int64 // bytes: behind the last cluster in use
	TotalClusters      int64 // of the virtual disk
	AllocatedClusters  int64 // of the active disk; without the plain zero clusters
	FragmentedClusters int64 // that do not follow the one before
	CompressedClusters int64
	CheckErrors        int64 // places that could not be read
	Corruptions, Leaks int64
	Notices            int64
	Passes             int64
	Incomplete         bool // a reference is broken: leaks may belong to what it led to
	UnknownExtension   bool // a header extension may refer to clusters that show up as leaks
	brokenRefcounts    bool // the refcount structures are unusable
}

// Clean reports that nothing is wrong: notices aside.
func (r *CheckResult) Clean() bool { return r.CheckErrors+r.Corruptions+r.Leaks == 0 }

// Check follows every reference in the image and compares them with the refcounts:
// active L1 and L2 tables, snapshots, refcount table and blocks, the snapshot table,
// the encryption header, the bitmap directory, bitmap tables and data. It tells
// found each thing that is wrong when it finds it; an error of found ends the check
// and is returned.
//
// What is wrong inside the image is a finding. Errors are those of ctx and found
// alone; what the file could not give is a finding and counted in CheckErrors.
// Nothing is written. The image must not change meanwhile.
func (img *Image) Check(ctx context.Context, opts *CheckOptions, found func(Finding) error) (*CheckResult, error) {
	c := newChecker(ctx, img, opts, found)
	err := c.run()
	return c.res, err
}

// Check opens the image in r, a file of size bytes, and checks it. A header that
// breaks the format is a finding, and the only one; other errors of Open are returned.
func Check(ctx context.Context, r io.ReaderAt, size int64, open *Options, opts *CheckOptions, found func(Finding) error) (*CheckResult, error) {
	img, err := Open(r, size, open)
	if err == nil {
		return img.Check(ctx, opts, found)
	}
	f, ok := HeaderFinding(err)
	if !ok {
		return nil, err
	}
	return &CheckResult{Corruptions: 1, Incomplete: true}, found(f)
}

// HeaderFinding is the finding of an image that Open refused with err because its
// header breaks the format; false for any other error.
func HeaderFinding(err error) (Finding, bool) {
	var format *FormatError
	if !errors.As(err, &format) || errors.As(err, new(*LimitError)) {
		return Finding{}, false
	}
	return findingOf(FindHeader, format), true
}

// A checker is one run of Check.
type checker struct {
	ctx   context.Context
	img   *Image
	found func(Finding) error
	res   *CheckResult
	plan  CheckPlan
	tell  func(done, total int64)

	win    window
	first  bool // the first pass: what does not depend on the window is found in it
	tables tableList
	pass   int64

	noRefcounts bool                          // the refcount structures do not count: they will move
	onOverlap   func(cluster int64, a, b use) // nil: nobody asks
	// onCount is told of each cluster of the file that is counted or referred to, in
	// order; nil: nobody asks.
	onCount func(cluster int64, stored, refs uint64, u use)

	l1     []byte   // a piece of an L1 table
	buf    []byte   // a slice of an L2 table
	words  []uint64 // the same
	counts []byte   // a piece of a refcount block
}

func newChecker(ctx context.Context, img *Image, opts *CheckOptions, found func(Finding) error) *checker {
	c := &checker{ctx: ctx, img: img, found: found, res: &CheckResult{}, plan: img.PlanCheck(opts), first: true}
	c.tables.max = int(min(opts.memory()/4/tableBytes, 1<<26))
	if opts != nil {
		c.tell = opts.Progress
	}
	return c
}

func (c *checker) run() error {
	c.res.TotalClusters = (c.img.active.size&^511 + c.img.geometry.ClusterSize() - 1) >> c.img.geometry.ClusterBits
	for lo := int64(0); lo < c.plan.Clusters; lo = c.nextWindow() {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.checkWindow(lo, min(lo+c.plan.Window, c.plan.Clusters)); err != nil {
			return err
		}
		c.first = false
		c.pass++
		c.res.Passes = c.pass
	}
	c.progress(1, 1)
	return nil
}

// nextWindow is where the next pass begins: with the next cluster that something
// refers to or that a refcount block counts.
func (c *checker) nextWindow() int64 {
	if c.win.next >= c.plan.Clusters {
		return c.plan.Clusters
	}
	return c.win.next &^ 63
}

// checkWindow is one pass: it counts the references to the clusters [lo, hi) and
// compares.
func (c *checker) checkWindow(lo, hi int64) error {
	c.win.reset(lo, hi, c.plan.Clusters)
	steps := []func() error{
		c.headerBits, c.loadOnes, c.refcountStructures, c.encryption, c.snapshotTable, c.bitmaps,
		c.views, c.walkTables, c.compare,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// progress tells that part of total of this pass is done.
func (c *checker) progress(part, total int64) {
	if c.tell == nil || total == 0 {
		return
	}
	const scale = 1 << 20
	passes := max(c.plan.Passes, c.pass+1)
	c.tell((c.pass*scale+part*scale/total)/passes*c.plan.Clusters>>20<<c.img.geometry.ClusterBits,
		c.plan.Clusters<<c.img.geometry.ClusterBits)
}

// report counts a finding and tells it.
func (c *checker) report(f Finding) error {
	n := max(1, f.Clusters)
	switch f.Severity {
	case SeverityCorruption:
		if f.Kind != FindUnreadable {
			c.res.Corruptions += n
		}
	case SeverityLeak:
		c.res.Leaks += n
	default:
		c.res.Notices++
	}
	return c.found(f)
}

// structural reports what every pass sees, once.
func (c *checker) structural(f Finding) error {
	if !c.first {
		return nil
	}
	return c.report(f)
}

// notice reports what is worth knowing, once.
func (c *checker) notice(f Finding) error {
	f.Severity = SeverityNotice
	return c.structural(f)
}

// headerBits reports the bits that say that the image is not well.
func (c *checker) headerBits() error {
	c.win.mark(0, 1, useHeader)
	bits := c.img.header.IncompatibleFeatures
	at := Finding{Structure: "header", Field: "incompatible_features", Host: 72, Wanted: "0"}
	for _, bit := range []struct {
		set  bool
		kind FindingKind
		name string
	}{
		{bits&IncompatDirty != 0, FindDirty, "the dirty bit"},
		{bits&IncompatCorrupt != 0, FindCorruptBit, "the corrupt bit"},
	} {
		at.Kind, at.Found = bit.kind, bit.name
		if bit.set {
			if err := c.notice(at); err != nil {
				return err
			}
		}
	}
	for _, e := range c.img.extensions {
		c.res.UnknownExtension = c.res.UnknownExtension || e.Name() == "unknown"
	}
	return nil
}
