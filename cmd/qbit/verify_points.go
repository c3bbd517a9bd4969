package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/manifest"
	"github.com/qbitkit/qbit/reconstruct/plan"
)

// A pointReport says whether a point can be restored.
type pointReport struct {
	Domain  string       `json:"domain,omitempty"`
	Disk    string       `json:"disk"`
	Point   string       `json:"point"`
	ID      string       `json:"id"`
	Kind    string       `json:"kind"`
	Verdict plan.Verdict `json:"verdict"`
	Sealed  sealedAs     `json:"sealed"`
	Root    string       `json:"xxh64-4m,omitempty"` // of the content, as it was sealed
	SHA256  string       `json:"sha256,omitempty"`
	Why     []string     `json:"why,omitempty"`
	Notes   []string     `json:"notes,omitempty"`

	disk   *plan.Disk
	backup *plan.Backup
	route  []*plan.Backup // nil: there is none
	sealed *manifest.Point
}

// sealedAs says how the content of a point compares with the manifest.
type sealedAs string

const (
	sealedNot    sealedAs = "no"      // the manifest does not have it
	sealedFiles  sealedAs = "files"   // it is as sealed: all its files are the sealed ones
	sealedChunks sealedAs = "chunks"  // it is as sealed: every chunk was compared
	sealedOther  sealedAs = "differs" // it is not
	sealedOpen   sealedAs = "unknown" // it could not be compared
)

// doubt, lose and note add a reason to a verdict, which only gets worse.
func (p *pointReport) doubt(format string, args ...any) {
	if p.Verdict == plan.Restorable {
		p.Verdict = plan.Doubtful
	}
	p.Why = append(p.Why, fmt.Sprintf(format, args...))
}

func (p *pointReport) lose(format string, args ...any) {
	p.Verdict = plan.Lost
	p.Why = append(p.Why, fmt.Sprintf(format, args...))
}

func (p *pointReport) note(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

// judgePoints says of each point what the plan, its files and its chain say.
func (v *verifier) judgePoints(ctx context.Context) error {
	for _, d := range v.s.Disks {
		var all []*pointReport
		for _, b := range d.Backups {
			all = append(all, v.planned(d, b))
		}
		if err := v.openChains(ctx, all); err != nil {
			return err
		}
		v.points = append(v.points, all...)
	}
	v.findGone()
	return nil
}

// planned is what the plan says of a point.
func (v *verifier) planned(d *plan.Disk, b *plan.Backup) *pointReport {
	p := &pointReport{Domain: d.Domain, Disk: d.Name, Point: b.Point, ID: b.ID, Kind: string(b.Kind), Sealed: sealedNot, disk: d, backup: b}
	verdict, why := d.Judge(b)
	p.Verdict = verdict
	for _, problem := range why {
		p.Why = append(p.Why, problem.String())
	}
	if p.sealed = sealedPoint(sealedDisk(v.m, d), d, b); p.sealed != nil {
		p.Sealed, p.Root, p.SHA256 = sealedOpen, p.sealed.Root.String(), p.sealed.SHA256
	}
	if verdict == plan.Lost {
		return p
	}
	route, err := d.Route(b, true)
	if err != nil {
		p.lose("%v", err)
		return p
	}
	p.route = route
	return p
}

// openChains opens the chain of each point, the longest first, for the shorter ones
// are part of them.
func (v *verifier) openChains(ctx context.Context, all []*pointReport) error {
	byBackup := make(map[*plan.Backup]*pointReport, len(all))
	for _, p := range all {
		byBackup[p.backup] = p
	}
	opened := map[*pointReport]bool{}
	for _, p := range slices.Backward(all) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if p.route == nil || opened[p] || len(v.damaged(p)) > 0 {
			continue
		}
		warnings, err := v.openChain(p)
		if err != nil {
			p.lose("%v", err)
			continue
		}
		for n, b := range p.route {
			if below := byBackup[b]; below != nil && !opened[below] {
				opened[below] = true
				below.warn(warnings, n)
			}
		}
	}
	return nil
}

// openChain opens and closes the chain of a point, and returns what it cannot say.
func (v *verifier) openChain(p *pointReport) ([]reconstruct.Warning, error) {
	o, err := v.k.newOpener(v.c)
	if err != nil {
		return nil, err
	}
	defer o.close()
	ch, err := o.openRoute(v.s, p.route)
	if err != nil {
		return nil, err
	}
	return reconstruct.Warnings(ch.links), nil
}

// warn takes over what the links up to the one with this index cannot say, unless
// the plan said it.
func (p *pointReport) warn(warnings []reconstruct.Warning, last int) {
	for _, w := range warnings {
		switch {
		case w.Index > last:
		case !w.Kind.Lossy():
			p.note("%s: %s", w.Link, w.Msg)
		case w.Kind == reconstruct.WarnLossy && saysLossy(p.route[w.Index]):
		default:
			p.doubt("%s: %s", w.Link, w.Msg)
		}
	}
}

func saysLossy(b *plan.Backup) bool {
	return slices.ContainsFunc(b.Problems, func(p plan.Problem) bool { return p.Kind == plan.ProblemLossy })
}

// damaged are the files on the way to a point that are damaged.
func (v *verifier) damaged(p *pointReport) (all []*fileReport) {
	for _, b := range p.route {
		if f := v.byName[b.Source.String()]; f.State == fileDamaged {
			all = append(all, f)
		}
	}
	return all
}

// findGone finds points of the manifest whose backups are not there.
func (v *verifier) findGone() {
	if v.m == nil || !v.whole {
		return
	}
	there := map[*manifest.Point]bool{}
	for _, p := range v.points {
		there[p.sealed] = true
	}
	for _, d := range v.m.Disks {
		for _, sealed := range d.Points {
			if there[sealed] {
				continue
			}
			p := &pointReport{Domain: d.Domain, Disk: d.Name, Point: sealed.Name, ID: sealed.ID, Kind: sealed.Kind,
				Sealed: sealedOpen, Root: sealed.Root.String(), SHA256: sealed.SHA256, sealed: sealed}
			p.lose("it was sealed, and its file is gone or no part of a backup any more (%s); qbit seal --forget drops it from the manifest", fileNames(sealed))
			v.points = append(v.points, p)
		}
	}
}
