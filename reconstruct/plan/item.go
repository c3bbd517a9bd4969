package plan

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"path"
	"strings"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
	"github.com/qbitkit/qbit/reconstruct/virtnbd"
)

// An item is an entry, and what its content shows it to be. At most one of the
// pointers is set.
type item struct {
	*entry
	image      *imageHead
	stream     *virtnbd.Meta
	checkpoint *libvirt.Checkpoint
	backup     *libvirt.Backup
	domain     *libvirt.Domain
	json       []byte // a JSON document
	raw        bool   // named like a raw disk
	broken     error  // it should be an image or a stream, and cannot be read
	used       bool   // it is part of a backup
}

// An imageHead is what a qcow2 image says of itself.
type imageHead struct {
	version  uint32
	size     int64
	backing  string // "": none
	dataFile string
	corrupt  bool
	bitmaps  []qcow2.BitmapInfo
}

// records of these bitmaps hold later changes too: the guest uses the image.
func (h *imageHead) records() bool {
	for _, b := range h.bitmaps {
		if b.Auto {
			return true
		}
	}
	return false
}

// A scan is all that lies in a folder.
type scan struct {
	*folder
	items  []*item
	byPath map[string]*item // files, not members
	byDir  map[string][]*item
}

func newScan(ctx context.Context, f *folder) (*scan, error) {
	s := &scan{folder: f, byPath: map[string]*item{}, byDir: map[string][]*item{}}
	for i := 0; i < len(f.entries); i++ { // members of archives come to the end
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		it := &item{entry: f.entries[i]}
		s.look(it)
		s.items = append(s.items, it)
		s.byDir[it.dir] = append(s.byDir[it.dir], it)
		if it.member == "" {
			s.byPath[it.path] = it
		}
	}
	return s, nil
}

// look finds out what an entry is, by its first bytes.
func (s *scan) look(it *item) {
	r, err := it.content()
	if err != nil {
		it.broken = err
		return
	}
	defer r.Close()
	head := make([]byte, min(it.size, 4096))
	if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		it.broken = err
		return
	}
	switch text := bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n"); {
	case bytes.HasPrefix(head, []byte("QFI\xfb")):
		it.image, it.broken = readHead(r, it.size, s.opts.Qcow2)
	case bytes.HasPrefix(head, []byte("PK\x03\x04")) && it.member == "":
		s.lookInto(it)
	case bytes.HasPrefix(head, []byte("meta ")):
		meta, err := virtnbd.ReadMeta(r, it.size)
		it.stream, it.broken = &meta, err
	case bytes.HasPrefix(text, []byte("<")):
		s.lookXML(it)
	case isJSON(text):
		s.lookJSON(it)
	default:
		it.raw = isRawName(it.name)
	}
}

func (s *scan) lookInto(it *item) {
	if err := s.members(it.entry); err != nil {
		s.problem(ProblemUnreadable, Doubt, "%s: the archive cannot be read: %v", it.path, err)
		return
	}
	it.used = true
}

// readHead reads what a qcow2 image says of itself.
func readHead(r io.ReaderAt, size int64, limits qcow2.Limits) (*imageHead, error) {
	img, err := qcow2.Open(r, size, &qcow2.Options{Limits: limits})
	if err != nil {
		return nil, err
	}
	h := &imageHead{version: img.Header().Version, size: img.Size(), corrupt: img.Corrupt()}
	if ref := img.Backing(); ref != nil {
		h.backing = ref.Name
	}
	if ref := img.DataFile(); ref != nil {
		h.dataFile = ref.Name
	}
	if bitmaps, err := img.Bitmaps(); err == nil { // without them the data can be read all the same
		h.bitmaps = bitmaps
	}
	return h, nil
}

// lookXML reads a document of libvirt. One of another kind is none of ours.
func (s *scan) lookXML(it *item) {
	b, err := s.record(it.entry)
	if err != nil {
		return
	}
	switch libvirt.Sniff(b) {
	case libvirt.KindCheckpoint:
		it.checkpoint, err = libvirt.ParseCheckpoint(b)
	case libvirt.KindBackup:
		it.backup, err = libvirt.ParseBackup(b)
	case libvirt.KindDomain:
		it.domain, err = libvirt.ParseDomain(b)
	}
	if err != nil {
		s.problem(ProblemRecord, Doubt, "%s: this record of libvirt cannot be read: %v", it.ID(), err)
		it.checkpoint, it.backup, it.domain = nil, nil, nil
	}
}

func isJSON(text []byte) bool {
	return bytes.HasPrefix(text, []byte("{")) || bytes.HasPrefix(text, []byte("["))
}

func (s *scan) lookJSON(it *item) {
	if b, err := s.record(it.entry); err == nil && json.Valid(b) {
		it.json = b
	}
}

// isRawName says that a file is named like a raw disk. Its content cannot tell.
func isRawName(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".raw", ".img":
		return true
	}
	return false
}

// holdsDisk says that an item may hold the blocks of a disk.
func (it *item) holdsDisk() bool {
	return it.image != nil || it.stream != nil || it.raw || it.broken != nil
}

// diskSize is the size of the disk in an image, 0 where the item is none.
func (it *item) diskSize() int64 {
	switch {
	case it.image != nil:
		return it.image.size
	case it.stream != nil:
		return it.stream.VirtualSize
	case it.raw:
		return it.size
	}
	return 0
}

func (it *item) format() Format {
	switch {
	case it.stream != nil:
		return FormatVirtnbd
	case it.raw:
		return FormatRaw
	}
	return FormatQcow2
}

// inDir are the items of a folder, or of the same part of an archive.
func (s *scan) inDir(dir string) []*item { return s.byDir[dir] }

// at is the item with a path below the folder; nil: there is none.
func (s *scan) at(p string) *item { return s.byPath[p] }
