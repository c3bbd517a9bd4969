package qcow2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
)

// maxSalvageSnapshots is how many snapshots, the newest, are asked for a range of which
// the active tables are broken.
const maxSalvageSnapshots = 16

// SalvageOptions are the options of Salvage. The zero value reads a stand-alone image.
type SalvageOptions struct {
	// OpenRef opens a backing file or an external data file, as Options.OpenRef does.
	// It may give a *Salvaged for a backing file that is broken itself.
	OpenRef func(Ref) (Disk, error)
	Limits  Limits

	// Snapshot is the internal snapshot that is wanted, by ID or name; "": the disk.
	Snapshot string

	// What is known of an image whose header is lost or wrong: it counts more than what
	// the header says. 0 where it is not known. Bytes.
	ClusterSize, Size int64
	L1Offset          HostOffset
	// Tables are L2 tables for entries of the L1 table, by their index.
	Tables map[int64]HostOffset

	// Link says that the image is an increment: what it does not hold stays Absent, and
	// its backing file is not asked for.
	Link bool
	// NoBacking says that no backing file is wanted: what would be in one is lost; where
	// the header is lost, there was none.
	NoBacking bool
	// Below is the disk below a link of a chain. What the link does not hold is read from
	// there, whatever backing file it names.
	Below Disk
	// Older takes lost bytes from the disk below, and makes them Doubtful.
	Older bool

	// Memory bounds what is remembered about host clusters, in bytes; 0 means 256 MiB,
	// enough for files of 10 TiB with clusters of 64 KiB. With less than an image needs,
	// all of it is doubtful.
	Memory int64
}

func (o *SalvageOptions) memory() int64 {
	if o.Memory <= 0 {
		return defaultSalvageMemory
	}
	return max(o.Memory, 1<<20)
}

// Salvaged is the disk of an image that may be broken in any way. As a Disk it never
// fails on what the image holds: what cannot be read is zero. Verdicts says where that
// is, and what else cannot be trusted. It may be used from several goroutines.
type Salvaged struct {
	img   *Image
	opts  SalvageOptions
	notes []string

	target    *salvageView
	snapshots []*salvageView // oldest first
	assigned  map[int64]HostOffset
	parts     partLoader
	ev        *evidence

	streams  *streamReader
	storage  io.ReaderAt // of plain clusters; nil while a data file is closed
	bad      *tolerantReader
	below    Disk
	badBelow *tolerantReader

	headerLost bool   // nothing is known of a backing file
	searched   bool   // the L1 table was found elsewhere than the header says
	doubt      Reason // of everything
}

// Salvage opens the image in r, a file of size bytes, whatever is wrong with it. It reads
// every table; where the header or the L1 table is lost, it reads the whole file to find
// the tables. opts may be nil.
//
// Errors: ErrNotQcow2 where no table was found either; *UnsupportedError for an image
// that is encrypted; *NotFoundError and *FormatError for a snapshot that cannot be had;
// those of OpenRef and ctx.
func Salvage(ctx context.Context, r io.ReaderAt, size int64, opts *SalvageOptions) (*Salvaged, error) {
	s := &Salvaged{}
	if opts != nil {
		s.opts = *opts
	}
	if err := s.open(ctx, r, size); err != nil {
		return nil, err
	}
	if err := s.setTarget(); err != nil {
		return nil, err
	}
	if err := s.gather(ctx); err != nil {
		return nil, err
	}
	s.weighImage()
	return s, nil
}

// setTarget finds the view that is wanted, and snapshots that may help it.
func (s *Salvaged) setTarget() error {
	s.parts.img = s.img
	s.target = newSalvageView(s, s.img.active, true)
	s.assigned = s.opts.Tables
	if s.opts.Snapshot != "" {
		d, err := s.img.SnapshotDisk(s.opts.Snapshot)
		if err != nil {
			return err
		}
		s.target = newSalvageView(s, d.(*snapshotDisk).view, false)
		return nil
	}
	for snap, err := range s.img.EachSnapshot() {
		if err != nil {
			s.note("the snapshot table is broken: %v", err)
			break
		}
		if d, err := s.img.snapshotView(&snap); err == nil {
			s.snapshots = append(s.snapshots, newSalvageView(s, d.view, false))
		}
		if len(s.snapshots) > maxSalvageSnapshots {
			s.snapshots = s.snapshots[1:]
		}
	}
	return nil
}

// note says something about the image as a whole. The image's own bytes stand in it
// quoted.
func (s *Salvaged) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// weighImage takes over the doubts about everything.
func (s *Salvaged) weighImage() {
	if s.doubt == "" {
		s.doubt = s.ev.doubt
	}
	if s.doubt == "" && s.oddGeometry() {
		s.doubt = ReasonGeometry
	}
	if s.doubt == "" && s.searched && !s.ev.proven() {
		s.doubt = ReasonL1Found
	}
	if s.doubt != "" {
		s.note("everything is doubtful: %s", s.doubt.Text())
	}
	if end := s.mappedEnd(); end > s.target.size && s.target.active && len(s.snapshots) == 0 {
		s.note("the tables map more (up to %d bytes) than the header says that the disk has (%d bytes)", end, s.target.size)
	}
}

// mappedEnd is where the last L2 table of the target ends.
func (s *Salvaged) mappedEnd() int64 {
	g := s.img.geometry
	for i := s.target.l1Size - 1; i >= int64(g.l1EntriesFor(uint64(s.target.size))); i-- {
		if e, missing := s.target.l1Entry(i); missing == "" && e != 0 && checkL1(e, g, s.img.size) == "" && i < math.MaxInt64/g.l2Coverage() {
			return (i + 1) * g.l2Coverage()
		}
	}
	return 0
}

// Image is the image as far as it could be opened: with a header that was mended.
func (s *Salvaged) Image() *Image { return s.img }

// Notes are what was found out or assumed about the image as a whole, for people.
func (s *Salvaged) Notes() []string { return s.notes }

// TableCoverage is how many bytes of the disk an L2 table maps: entry i of the L1 table is
// for those from i times that on.
func (s *Salvaged) TableCoverage() int64 { return s.img.geometry.l2Coverage() }

// BackingDisk is the disk below, or nil.
func (s *Salvaged) BackingDisk() Disk { return s.below }

// Size implements Disk.
func (s *Salvaged) Size() int64 { return s.target.size }

// ReadAt implements Disk. The only errors are io.EOF at the end of the disk, and that of
// a negative offset.
func (s *Salvaged) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading at a negative offset (%d)", off)
	}
	if off >= s.Size() {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), s.Size()-off))
	s.pieces(off, off+int64(n), s.opts.Older, func(e piece) bool {
		e.read(p[e.Off-off:][:e.Len])
		return true
	})
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Extents implements Disk. Lost ranges are Zero.
func (s *Salvaged) Extents(off, n int64) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		if err := s.target.checkRange(off, n); err != nil {
			yield(Extent{}, err)
			return
		}
		m := merger{emit: func(e Extent) bool { return yield(e, nil) }}
		if s.pieces(off, off+n, s.opts.Older, func(p piece) bool { return m.add(p.extent()) }) {
			m.flush()
		}
	}
}

// Verdicts yields what is known of [off, off+n): ascending, without gaps, neighbours
// of one kind merged. It decodes compressed clusters; plain data it does not read, but
// what ReadAt, or a Storage of Extents, failed to read before is lost. An error, of a
// range outside of the disk, is yielded once.
func (s *Salvaged) Verdicts(off, n int64) iter.Seq2[Verdict, error] {
	return func(yield func(Verdict, error) bool) {
		if err := s.target.checkRange(off, n); err != nil {
			yield(Verdict{}, err)
			return
		}
		var cur Verdict
		more := s.pieces(off, off+n, true, func(p piece) bool {
			v := p.verdict()
			if cur.Len > 0 && cur.follows(v) {
				cur.Len += v.Len
				return true
			}
			last := cur
			cur = v
			return last.Len == 0 || yield(last, nil)
		})
		if more && cur.Len > 0 {
			yield(cur, nil)
		}
	}
}

// pieces emits the pieces of [off, end), with those of the disk below where this one
// holds nothing. probe has streams decoded and what could not be read marked. The result
// is false where emit wanted no more.
func (s *Salvaged) pieces(off, end int64, probe bool, emit func(piece) bool) bool {
	err := s.target.walk(off, end, func(p piece) bool {
		if s.doubt != "" {
			p.doubt(s.doubt)
		}
		if !probe {
			return s.layer(p, probe, emit)
		}
		return p.probe(func(p piece) bool { return s.layer(p, probe, emit) })
	})
	return !errors.Is(err, errStop)
}

// layer emits p, or what is below where p is absent, or lost and older bytes are wanted.
func (s *Salvaged) layer(p piece, probe bool, emit func(piece) bool) bool {
	switch {
	case p.Kind == Absent && s.below != nil:
		return s.fromBelow(p, p.grade, p.reason, probe, emit)
	case p.grade == Lost && s.below != nil && s.opts.Older:
		return s.fromBelow(p, Doubtful, ReasonOlder, probe, emit)
	case p.Kind == Absent && !s.opts.Link:
		s.absent(&p)
	}
	return emit(p)
}

// absent says what becomes of a range that nothing holds.
func (s *Salvaged) absent(p *piece) {
	switch {
	case s.img.unopenedBacking() != nil:
		p.lose(ReasonBackingFile)
	case s.headerLost && !s.opts.NoBacking:
		p.doubt(ReasonNoBacking)
	}
}

// fromBelow emits what the disk below has in the place of p, no better than grade.
func (s *Salvaged) fromBelow(p piece, grade Grade, reason Reason, probe bool, emit func(piece) bool) bool {
	end := min(p.End(), s.below.Size())
	if p.Off < end {
		ok := s.piecesBelow(p.Off, end, probe, func(q piece) bool {
			q.Depth++
			if grade == Doubtful {
				q.doubt(reason)
			}
			return emit(q)
		})
		if !ok {
			return false
		}
	}
	if end = max(end, p.Off); end == p.End() {
		return true
	}
	rest := p.part(end, p.End()) // behind the end of a shorter disk it is zero
	if rest.grade == Lost {
		rest.grade, rest.reason = grade, reason
	}
	return emit(rest)
}

// piecesBelow are the pieces of the disk below.
func (s *Salvaged) piecesBelow(off, end int64, probe bool, emit func(piece) bool) bool {
	if d, ok := s.below.(*Salvaged); ok {
		return d.pieces(off, end, probe, emit)
	}
	at := off
	for e, err := range s.below.Extents(off, end-off) {
		if err != nil || e.Off != at || e.Len <= 0 || e.Len > end-at {
			break
		}
		at = e.End()
		if !s.belowPiece(e, probe, emit) {
			return false
		}
	}
	if at == end {
		return true
	}
	p := piece{Extent: Extent{Off: at, Len: end - at}}
	p.lose(ReasonBackingFile)
	return emit(p)
}

// belowPiece emits an extent of a disk below that is no salvaged one. Its bytes are read
// through that disk, at the guest's offset.
func (s *Salvaged) belowPiece(e Extent, probe bool, emit func(piece) bool) bool {
	p := piece{Extent: e}
	if e.Kind == Data || e.Kind == Compressed {
		p.Kind, p.Storage, p.Host, p.HasHost = Data, s.badBelow, HostOffset(e.Off), true
	}
	if probe {
		return p.probe(emit)
	}
	return emit(p)
}

var _ Disk = (*Salvaged)(nil)
