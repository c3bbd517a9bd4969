package sets

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/qbitkit/qbit/testimages"
)

// A chain is a frozen chain of package testimages, in memory.
type chain struct {
	*testimages.Chain                   // paths are names
	files             map[string][]byte // images and XML by name
	holes             map[string][][2]int64
	at                map[string]time.Time // of checkpoints, by name
}

// index reads a frozen chain once.
var index = func() func(name string) *chain {
	var mu sync.Mutex
	seen := map[string]*chain{}
	return func(name string) *chain {
		mu.Lock()
		defer mu.Unlock()
		if seen[name] == nil {
			c, err := readChain(name)
			if err != nil {
				panic(fmt.Sprintf("read chain %s: %v", name, err)) // it is embedded
			}
			seen[name] = c
		}
		return seen[name]
	}
}()

func readChain(name string) (*chain, error) {
	dir, err := os.MkdirTemp("", "sets")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	extracted, err := testimages.Extract(dir, name)
	if err != nil {
		return nil, err
	}
	c := &chain{extracted, map[string][]byte{}, map[string][][2]int64{}, map[string]time.Time{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if c.files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	for _, f := range c.Files {
		c.holes[f.Name] = f.Holes
	}
	c.rename()
	return c, nil
}

// creation is where libvirt says when a checkpoint was made, in seconds.
var creation = regexp.MustCompile(`<creationTime>(\d+)</creationTime>`)

// rename makes names of the paths, which are gone, and reads the checkpoints' times.
func (c *chain) rename() {
	for i := range c.Disks {
		d := &c.Disks[i]
		d.Source = path.Base(filepath.ToSlash(d.Source))
		for j := range d.Points {
			p := &d.Points[j]
			p.File = path.Base(filepath.ToSlash(p.File))
			p.CheckpointXML = path.Base(filepath.ToSlash(p.CheckpointXML))
			if m := creation.FindSubmatch(c.files[p.CheckpointXML]); m != nil {
				n, _ := strconv.ParseInt(string(m[1]), 10, 64)
				c.at[p.Checkpoint] = time.Unix(n, 0).UTC()
			}
		}
	}
}

// write writes a file of the chain, its holes as holes.
func (c *chain) write(name, to string) error {
	b := c.files[name]
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(int64(len(b))); err != nil {
		return err
	}
	at := int64(0)
	for _, h := range append(slices.Clone(c.holes[name]), [2]int64{int64(len(b)), 0}) {
		if _, err := f.WriteAt(b[at:h[0]], at); err != nil {
			return err
		}
		at = h[0] + h[1]
	}
	return f.Close()
}

// A keeper writes more files of a chain into a set's folder.
type keeper func(c *chain, dir string) error

// A namer gives a point of a disk its names in a layout.
type namer func(d testimages.ChainDisk, i int) Truth

// truth makes the rows of the first points of each disk: what the namer leaves
// empty comes from the chain. Lossy points taint those that follow.
func (c *chain) truth(points int, name namer) []Truth {
	var rows []Truth
	for _, d := range c.Disks {
		lossy, parent := false, ""
		for i, p := range d.Points[:min(points, len(d.Points))] {
			t := name(d, i)
			t.Size, t.SHA256 = p.Size, p.SHA256
			lossy = lossy || p.Lossy
			t.Lossy = lossy
			t.Kind = kindOf(i)
			t.Parent, parent = parent, t.Point
			if t.Target == "" && t.Disk != d.Target {
				t.Target = d.Target
			}
			rows = append(rows, t)
		}
	}
	return rows
}

func kindOf(i int) string {
	if i == 0 {
		return "full"
	}
	return "inc"
}

// day is when the i-th backup was made, in layouts that carry a time.
func day(i int) time.Time {
	return time.Date(2026, 3, 1+i, 10, 0, 0, 0, time.UTC)
}

// epoch is day as tools write it into names.
func epoch(i int) string { return strconv.FormatInt(day(i).Unix(), 10) }

// spread writes the data files of a chain to where the rows of the truth say, with
// the backing name that each is to have; nil leaves them. Then each keeper adds
// what else it wants of the chain.
func (s *Set) spread(from, dir string, backing func(t Truth) (name, format string), keep ...keeper) error {
	c := index(from)
	for _, t := range s.Truth {
		source, format := s.sourceOf(c, t)
		to := s.path(dir, t)
		if err := c.write(source, to); err != nil {
			return err
		}
		if backing == nil || format != "qcow2" {
			continue
		}
		name, format := backing(t)
		if err := rename(to, name, format); err != nil {
			return err
		}
	}
	for _, k := range keep {
		if err := k(c, dir); err != nil {
			return err
		}
	}
	return nil
}

// sourceOf finds the frozen file of a row by its place.
func (s *Set) sourceOf(c *chain, t Truth) (name, format string) {
	d := slices.Index(s.Disks(), t.Disk)
	for i, row := range s.Points(t.Disk) {
		if row.Point == t.Point {
			p := c.Disks[d].Points[i]
			return p.File, p.Format
		}
	}
	panic("a row of the truth is not among its own points")
}

// put writes a file of text beside the data.
func put(dir, name, text string) error {
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
