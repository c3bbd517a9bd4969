package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/qbitkit/qbit/reconstruct/plan"
)

// judgeMoments looks whether the disks of a domain are of one moment: only together
// they are the disks of a guest that ever was. What shows that they are not is refused;
// what nothing shows is said.
func (r *restoreCommand) judgeMoments(c *console, routes []diskRoute) error {
	var refused []error
	for i, a := range routes {
		for _, b := range routes[i+1:] {
			if a.disk.Domain != b.disk.Domain {
				continue
			}
			switch err := differ(r.from.at, a, b); {
			case err != nil:
				refused = append(refused, err)
			case !oneMoment(a.point(), b.point()) && r.strict:
				refused = append(refused, badData{fmt.Errorf("%s (refused by --strict)", doubtMoment(a, b))})
			case !oneMoment(a.point(), b.point()):
				c.warn("%s", doubtMoment(a, b))
			}
		}
	}
	return errors.Join(refused...)
}

// differ is an error where two disks are at points of different names, and one of them
// has the other's point too: then the names tell moments, and these are two. It does
// not matter how the points were found: as the newest ones, or as of a time.
func differ(at string, a, b diskRoute) error {
	p, q := a.point().Point, b.point().Point
	if p == q || a.disk.Tool != b.disk.Tool || !shares(b.disk, p) && !shares(a.disk, q) {
		return nil
	}
	which := "the newest point"
	if at != "" {
		which = "as of " + escapeName(at) + " the point"
	}
	return badData{fmt.Errorf("%s of %s is %s, that of %s is %s: they are of different moments. Name a point that both have with --at, or one disk with --disk",
		which, escapeName(diskTitle(a.disk)), escapeName(p), escapeName(diskTitle(b.disk)), escapeName(q))}
}

// shares says that a disk has a point of that name.
func shares(d *plan.Disk, point string) bool {
	return slices.ContainsFunc(d.Backups, func(b *plan.Backup) bool { return b.Point == point })
}

// oneMoment says that records speak for two backups being of one moment: the names of
// their points, unless the times are days apart, as those of two folders may be that
// count from the same name on; or the times to the second.
func oneMoment(a, b *plan.Backup) bool {
	known := !a.Time.IsZero() && !b.Time.IsZero()
	apart := a.Time.Sub(b.Time).Abs()
	if a.Point == b.Point {
		return !known || apart < 24*time.Hour // a tool may note when it came to each disk
	}
	return known && apart < time.Second
}

// doubtMoment says that nothing shows that two disks are of one moment.
func doubtMoment(a, b diskRoute) string {
	return fmt.Sprintf("nothing says that %s at point %s%s and %s at point %s%s are of one moment: a guest may never have had both",
		diskTitle(a.disk), a.point().Point, madeAt(a.point()), diskTitle(b.disk), b.point().Point, madeAt(b.point()))
}

func madeAt(b *plan.Backup) string {
	if b.Time.IsZero() {
		return ""
	}
	return fmt.Sprintf(" (of %s)", b.Time.UTC().Format("2006-01-02 15:04:05"))
}
