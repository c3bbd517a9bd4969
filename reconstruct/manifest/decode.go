package manifest

import (
	"encoding/hex"
	"errors"
	"io"
)

// Decode reads a manifest and validates it, within limits, which may be nil. What
// is wrong with the document is an *Error. It reads token by token: memory grows
// with what the document says, never with what it claims.
func Decode(in io.Reader, limits *Limits) (*Manifest, error) {
	r := newReader(in, limits.withDefaults())
	m := &Manifest{}
	if err := r.manifest(m); err != nil {
		return nil, err
	}
	if _, err := r.Token(); !errors.Is(err, io.EOF) {
		return nil, r.errorf("there is more behind the end of the document")
	}
	return m, m.Validate(limits)
}

func (r *reader) manifest(m *Manifest) error {
	version, chunk := int64(0), int64(0)
	err := r.object(func(key string) error {
		if key != "qbit-manifest" && version == 0 {
			return r.errorf("the first key is %s, and not qbit-manifest", brief(key))
		}
		switch key {
		case "qbit-manifest":
			return r.version(&version)
		case "chunk-size":
			return r.chunkSize(&chunk)
		case "disks":
			return r.array(func() error { return r.disk(m) })
		}
		return r.unknown(key)
	})
	if err == nil && chunk == 0 {
		err = r.errorf("chunk-size is missing")
	}
	return err
}

func (r *reader) version(p *int64) error {
	if err := r.number(p); err != nil {
		return err
	}
	if *p != Version {
		return r.errorf("it is of version %d; this program knows version %d", *p, Version)
	}
	return nil
}

func (r *reader) chunkSize(p *int64) error {
	if err := r.number(p); err != nil {
		return err
	}
	if *p != ChunkSize {
		return r.errorf("chunk-size is %d; in version %d it is %d", *p, Version, ChunkSize)
	}
	return nil
}

func (r *reader) disk(m *Manifest) error {
	d := &Disk{}
	m.Disks = append(m.Disks, d)
	if r.left.Points--; r.left.Points < 0 {
		return r.errorf("there are more disks and points than the limits allow")
	}
	return r.object(func(key string) error {
		switch key {
		case "domain":
			return r.text(&d.Domain)
		case "name":
			return r.text(&d.Name)
		case "points":
			return r.array(func() error { return r.point(d) })
		}
		return r.unknown(key)
	})
}

func (r *reader) point(d *Disk) error {
	if r.left.Points--; r.left.Points < 0 {
		return r.errorf("there are more disks and points than the limits allow")
	}
	p := &Point{}
	d.Points = append(d.Points, p)
	rooted := false
	err := r.object(func(key string) error {
		switch key {
		case "id":
			return r.text(&p.ID)
		case "name":
			return r.text(&p.Name)
		case "kind":
			return r.text(&p.Kind)
		case "size":
			return r.number(&p.Size)
		case "parent":
			p.Parent = &Parent{}
			return r.parent(p.Parent)
		case "assumed":
			return r.truth(&p.Assumed)
		case "root":
			rooted = true
			return r.sum(&p.Root)
		case "sha256":
			return r.text(&p.SHA256)
		case "files":
			return r.array(func() error { return r.file(p) })
		case "chunks":
			return r.array(func() error { return r.run(p) })
		}
		return r.unknown(key)
	})
	if err == nil && !rooted {
		err = r.errorf("the point has no root")
	}
	return err
}

func (r *reader) parent(p *Parent) error {
	return r.object(func(key string) error {
		switch key {
		case "id":
			return r.text(&p.ID)
		case "root":
			return r.sum(&p.Root)
		}
		return r.unknown(key)
	})
}

func (r *reader) file(p *Point) error {
	if r.left.Files--; r.left.Files < 0 {
		return r.errorf("there are more files than the limits allow")
	}
	var f File
	summed := false
	err := r.object(func(key string) error {
		switch key {
		case "path":
			return r.text(&f.Path)
		case "member":
			return r.text(&f.Member)
		case "size":
			return r.number(&f.Size)
		case "xxh64-4m":
			summed = true
			return r.sum(&f.Sum)
		case "sha256":
			return r.text(&f.SHA256)
		}
		return r.unknown(key)
	})
	if err == nil && !summed {
		err = r.errorf("the file has no checksum xxh64-4m")
	}
	p.Files = append(p.Files, f)
	return err
}

// run reads a run of chunks: their checksums, or how many are zero.
func (r *reader) run(p *Point) error {
	var (
		run          Run
		zeros        int64
		first, other bool
	)
	err := r.object(func(key string) error {
		switch key {
		case "first":
			first = true
			return r.number(&run.First)
		case "zeros":
			other = true
			return r.number(&zeros)
		case "sums":
			return r.sums(&run)
		}
		return r.unknown(key)
	})
	if err != nil {
		return err
	}
	if !first || other == (run.Sums != nil) {
		return r.errorf("a run of chunks has first, and either sums or zeros")
	}
	run.Count = zeros + int64(len(run.Sums))/8
	if run.Count <= 0 || run.First > 1<<62 || run.Count > 1<<62-run.First {
		return r.errorf("a run of %d chunks from %d on", run.Count, run.First)
	}
	p.Runs.add(run)
	return nil
}

func (r *reader) sums(run *Run) error {
	var s string
	if err := r.text(&s); err != nil {
		return err
	}
	b, err := hex.DecodeString(s)
	if err != nil || len(b)%8 != 0 || len(b) == 0 {
		return r.errorf("sums are 16 hex digits for each chunk, and %s is there", brief(s))
	}
	run.Sums = b
	return nil
}
