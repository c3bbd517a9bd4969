package reconstruct

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/qbitkit/qbit/reconstruct/manifest"
)

// The journal of a restore that can be resumed. Numbers are big-endian.
//
//	 0       8  "qbitjrnl"
//	 8       4  version, 1
//	12       4  n, the length of the header
//	16       n  the header: a ResumeHeader as JSON
//	16+n     8  xxh64 of all before it
//	24+n  24·k  records
//
// A record is a chunk that is in the target and was synced there:
//
//	 0  8  number of the chunk; 2^64-1: the restore is whole, and got its name
//	 8  8  xxh64 of its content; 0 at the end
//	16  8  xxh64 of the hash at 16+n and the 16 bytes before
//
// Records of other journals, which a filesystem may show after a crash, do not fit
// the hash of this header, in which there is a random number.
const (
	resumeMagic   = "qbitjrnl"
	resumeVersion = 1
	resumeFixed   = len(resumeMagic) + 8 // before the header
	recordSize    = 24
	wholeRecord   = ^uint64(0)

	maxResumeHeader = 4 << 20
	maxResumeDisk   = 1 << 62
)

// A ResumeFact is something on which the content of a restored disk depends: an
// option, or a file that is read and how to know it again.
type ResumeFact struct {
	What string `json:"what"` // what it is about, such as "file 2"
	Is   string `json:"is"`
}

// A ResumeHeader says to which restore a journal belongs.
type ResumeHeader struct {
	Size  int64        `json:"size"` // of the disk, in bytes
	Mode  fs.FileMode  `json:"mode"` // permissions that the result gets
	Nonce uint64       `json:"nonce"`
	Job   []ResumeFact `json:"job"`
}

// A ResumeSum is the hash of a chunk that was written.
type ResumeSum struct {
	Chunk int64 // from 0
	Sum   uint64
}

// A ResumeJournal is what a journal says.
type ResumeJournal struct {
	Header ResumeHeader
	Sums   []ResumeSum // ascending; of a chunk that was recorded twice the later one
	Whole  bool        // all was written, and the result may have its name

	key  uint64 // hash of the header
	head int64  // length of what is before the records
	end  int64  // where the last good record ends
}

// ReadResumeJournal reads the journal in the first size bytes of r. A record that
// is torn or damaged is passed over, for its chunk can be made again; a header that
// is not whole is an error. Memory is bounded by size.
func ReadResumeJournal(r io.ReaderAt, size int64) (*ResumeJournal, error) {
	in := bufio.NewReaderSize(io.NewSectionReader(r, 0, size), 1<<16)
	j := &ResumeJournal{}
	if err := j.readHead(in); err != nil {
		return nil, fmt.Errorf("it is no journal of a restore: %w", err)
	}
	return j, j.readRecords(in)
}

func (j *ResumeJournal) readHead(in io.Reader) error {
	fixed := make([]byte, resumeFixed)
	if err := readHeadPart(in, fixed); err != nil {
		return err
	}
	version, n := binary.BigEndian.Uint32(fixed[8:]), binary.BigEndian.Uint32(fixed[12:])
	switch {
	case string(fixed[:8]) != resumeMagic:
		return fmt.Errorf("it begins with %q and not with %q", fixed[:8], resumeMagic)
	case version != resumeVersion:
		return fmt.Errorf("its version is %d, and not %d", version, resumeVersion)
	case n > maxResumeHeader:
		return fmt.Errorf("its header has %d bytes, which is more than %d", n, maxResumeHeader)
	}
	var header bytes.Buffer // grows as bytes come
	if _, err := io.CopyN(&header, in, int64(n)+8); err != nil {
		return errors.New("it ends within its header")
	}
	text, sum := header.Bytes()[:n], binary.BigEndian.Uint64(header.Bytes()[n:])
	if got := xxhash.Sum64(append(fixed, text...)); got != sum {
		return fmt.Errorf("the xxh64 of its header is %016x and should be %016x", got, sum)
	}
	j.key, j.head = sum, int64(resumeFixed)+int64(n)+8
	return j.decodeHeader(text)
}

func readHeadPart(in io.Reader, p []byte) error {
	_, err := io.ReadFull(in, p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it ends within its header")
	}
	return err
}

func (j *ResumeJournal) decodeHeader(text []byte) error {
	if err := json.Unmarshal(text, &j.Header); err != nil {
		return fmt.Errorf("its header: %w", err)
	}
	if h := j.Header; h.Size < 0 || h.Size > maxResumeDisk || h.Mode&^fs.ModePerm != 0 {
		return fmt.Errorf("its header has the size %d and the mode %#o", h.Size, h.Mode)
	}
	return nil
}

// readRecords reads what stands behind the header.
func (j *ResumeJournal) readRecords(in io.Reader) error {
	j.end = j.head
	var b [recordSize]byte
	for at := j.head; ; at += recordSize {
		_, err := io.ReadFull(in, b[:])
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			j.sort()
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the journal at %d: %w", at, err)
		}
		if j.take(b[:]) {
			j.end = at + recordSize
		}
	}
}

// take adds a record, if it is one.
func (j *ResumeJournal) take(b []byte) bool {
	chunk, sum := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	switch {
	case binary.BigEndian.Uint64(b[16:]) != recordCheck(j.key, b[:16]):
		return false
	case chunk == wholeRecord:
		j.Whole = true
	case chunk < uint64(manifest.Chunks(j.Header.Size)):
		j.Sums = append(j.Sums, ResumeSum{int64(chunk), sum})
	default:
		return false
	}
	return true
}

// sort puts the chunks in order, the last record of each.
func (j *ResumeJournal) sort() {
	slices.SortStableFunc(j.Sums, func(a, b ResumeSum) int { return cmp.Compare(a.Chunk, b.Chunk) })
	n := 0
	for i, s := range j.Sums {
		if i+1 < len(j.Sums) && j.Sums[i+1].Chunk == s.Chunk {
			continue
		}
		j.Sums[n] = s
		n++
	}
	j.Sums = j.Sums[:n]
}

// Append appends the journal as it is written.
func (j *ResumeJournal) Append(b []byte) ([]byte, error) {
	b, key, err := appendResumeHead(b, &j.Header)
	if err != nil {
		return nil, err
	}
	for _, s := range j.Sums {
		b = appendRecord(b, key, uint64(s.Chunk), s.Sum)
	}
	if j.Whole {
		b = appendRecord(b, key, wholeRecord, 0)
	}
	return b, nil
}

// appendResumeHead appends all that stands before the records, and says its hash.
func appendResumeHead(b []byte, h *ResumeHeader) ([]byte, uint64, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, 0, err
	}
	if len(text) > maxResumeHeader {
		return nil, 0, fmt.Errorf("the header of the journal would have %d bytes, which is more than %d", len(text), maxResumeHeader)
	}
	from := len(b)
	b = append(b, resumeMagic...)
	b = binary.BigEndian.AppendUint32(b, resumeVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	b = append(b, text...)
	key := xxhash.Sum64(b[from:])
	return binary.BigEndian.AppendUint64(b, key), key, nil
}

func appendRecord(b []byte, key, chunk, sum uint64) []byte {
	from := len(b)
	b = binary.BigEndian.AppendUint64(b, chunk)
	b = binary.BigEndian.AppendUint64(b, sum)
	return binary.BigEndian.AppendUint64(b, recordCheck(key, b[from:]))
}

// recordCheck is the hash at the end of a record.
func recordCheck(key uint64, p []byte) uint64 {
	var b [recordSize]byte
	binary.BigEndian.PutUint64(b[:], key)
	copy(b[8:], p)
	return xxhash.Sum64(b[:])
}

// empty forgets all chunks: what they were written to is gone.
func (j *ResumeJournal) empty() { j.Sums, j.Whole, j.end = nil, false, j.head }

// differs says in what a journal belongs to another restore than h; "": in nothing.
func (h *ResumeHeader) differs(now *ResumeHeader) string {
	if h.Size != now.Size {
		return fmt.Sprintf("the disk had %d bytes then, and has %d now", h.Size, now.Size)
	}
	for i, fact := range now.Job {
		switch {
		case i >= len(h.Job):
			return fmt.Sprintf("%s is %s now, and was not there then", fact.What, fact.Is)
		case h.Job[i].What != fact.What:
			return fmt.Sprintf("%s was %s then, and now %s is %s", h.Job[i].What, h.Job[i].Is, fact.What, fact.Is)
		case h.Job[i].Is != fact.Is:
			return fmt.Sprintf("%s was %s then, and is %s now", fact.What, h.Job[i].Is, fact.Is)
		}
	}
	if n := len(now.Job); len(h.Job) > n {
		return fmt.Sprintf("%s was %s then, and is not there now", h.Job[n].What, h.Job[n].Is)
	}
	return ""
}
