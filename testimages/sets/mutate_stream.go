package sets

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// streamMutations are those of virtnbdbackup's streams.
var streamMutations = []Mutation{
	{"CorruptFrame", "a byte of a payload is flipped", hasPayload, corruptFrame},
	{"CorruptHeader", "a frame's header is broken", hasPayload, corruptHeader},
	{"CutStream", "a stream ends within a payload", hasPayload, cutStream},
	{"CutAtFrame", "a stream ends between two frames, without a stop", hasPayload, cutAtFrame},
	{"FullUnderIncName", "a full stream lies under an increment's name", hasStreams, fullUnderIncName},
	{"ZeroFrames", "increments have zero frames for what became zero", isPlain, zeroFrames},
	{"TwoCandidates", "two streams claim one checkpoint and differ", isPlain, twoCandidates},
	{"WrongBase", "the full is one of another disk with the same names", hasStreams, wrongStreamBase},
	{"Traversal", "a stream says that its disk is named ../../escape", isPlain, traversal},
}

// hasStreams: the set is a chain of streams.
func hasStreams(s Set) bool { return s.Tool == "virtnbdbackup" && hasMiddle(s) && !s.Lossy }

// isPlain: and they are not compressed.
func isPlain(s Set) bool { return hasStreams(s) && !strings.Contains(s.Name, "lz4") }

// target is the row to damage: the middle of a chain, else a lone stream.
func (s Set) target() Truth {
	if t := s.middle(); t.Point != "" {
		return t
	}
	return s.Truth[0]
}

func hasPayload(s Set) bool {
	return s.Tool == "virtnbdbackup" && !s.Lossy && s.Name != "virtnbd-offline"
}

// frameAt finds where the n-th frame with data stands in a file.
func frameAt(b []byte, n int) (head int, f frame, compressed bool, err error) {
	s, err := parseStream(b)
	if err != nil {
		return 0, f, false, err
	}
	for _, f := range s.frames {
		if f.kind != "data" {
			continue
		}
		if n--; n < 0 {
			head := bytes.Index(b, appendHead(nil, f.kind, f.start, f.length))
			return head, f, s.meta.isCompressed(), nil
		}
	}
	return 0, f, false, errors.New("stream has no data")
}

// damage changes the bytes of the target, from its first data frame on.
func damage(dir string, s Set, e *Expect, how func(b []byte, head int, f frame) []byte) error {
	t := s.target()
	e.Files = t.Files
	b, err := os.ReadFile(s.path(dir, t))
	if err != nil {
		return err
	}
	head, f, _, err := frameAt(b, 0)
	if err != nil {
		return err
	}
	return os.WriteFile(s.path(dir, t), how(b, head, f), 0o644)
}

// corruptFrame: LZ4 frames have checksums of their own; else only version 2's
// checksum of the file tells.
func corruptFrame(dir string, s Set) (Expect, error) {
	e := s.expect("checksum", "adler", "lz4", "corrupt")
	v := Blind
	if strings.Contains(s.Name, "lz4") || s.Name == "virtnbd-chunked" || s.Name == "virtnbd-chksum" {
		v = Refuse
	}
	e.from(s, s.target(), v)
	err := damage(dir, s, &e, func(b []byte, head int, f frame) []byte {
		b[head+headLen+len(f.data)/2] ^= 0x40
		return b
	})
	if err == nil {
		e.blind(dir, s)
	}
	return e, err
}

func corruptHeader(dir string, s Set) (Expect, error) {
	e := s.expect("frame", "header", "kind", "checksum")
	e.from(s, s.target(), Refuse)
	return e, damage(dir, s, &e, func(b []byte, head int, _ frame) []byte {
		copy(b[head:], "dbta")
		return b
	})
}

func cutStream(dir string, s Set) (Expect, error) {
	e := s.expect("cut", "truncat", "ends", "end of", "eof", "checksum", "short")
	e.from(s, s.target(), Refuse)
	return e, damage(dir, s, &e, func(b []byte, head int, f frame) []byte {
		return b[:head+headLen+len(f.data)/2]
	})
}

func cutAtFrame(dir string, s Set) (Expect, error) {
	e := s.expect("cut", "truncat", "ends", "end of", "eof", "stop", "checksum", "short")
	e.from(s, s.target(), Refuse)
	return e, damage(dir, s, &e, func(b []byte, head int, f frame) []byte {
		return b[:head+headLen+len(f.data)+len(term)]
	})
}

// fullUnderIncName is what the tool does after it lost track: all can be restored.
func fullUnderIncName(dir string, s Set) (Expect, error) {
	t := s.middle()
	e := s.expect()
	e.Files = t.Files
	if err := s.fullUnderInc(dir, t); err != nil {
		return e, err
	}
	return e, s.again(dir, t)
}

// again makes a checksum anew that lies beside a row's file.
func (s Set) again(dir string, t Truth) error {
	b, err := os.ReadFile(s.path(dir, t))
	if err != nil {
		return err
	}
	return s.replace(dir, t, b)
}

func zeroFrames(dir string, s Set) (Expect, error) {
	e := s.expect()
	for _, t := range s.Truth {
		if t.Kind == "full" {
			continue
		}
		err := changeStream(s.path(dir, t), func(st *stream) error {
			st.frames = splitZeroes(st.frames)
			return nil
		})
		if err != nil {
			return e, err
		}
		if err := s.again(dir, t); err != nil {
			return e, err
		}
		e.Files = append(e.Files, t.Files[0])
	}
	return e, nil
}

func twoCandidates(dir string, s Set) (Expect, error) {
	t := s.middle()
	e := s.expect("two", "both", "candidate", "twice", "more than one", "also")
	second := strings.TrimSuffix(t.Files[0], ".data") + "-again.data"
	e.Files = []string{t.Files[0], second}
	e.from(s, t, Doubt|Refuse)
	b, err := os.ReadFile(s.path(dir, t))
	if err != nil {
		return e, err
	}
	other := t
	other.Files = []string{second}
	if err := os.WriteFile(s.path(dir, other), b, 0o644); err != nil {
		return e, err
	}
	return e, changeStream(s.path(dir, other), func(st *stream) error {
		first := bytes.Clone(st.frames[0].data)
		first[0] ^= 0xff
		st.frames[0].data = first
		return nil
	})
}

// wrongStreamBase: the full's stream says the same of itself, and holds other bytes.
func wrongStreamBase(dir string, s Set) (Expect, error) {
	full := s.chainTo(s.newest())[0]
	e := s.expect("manifest", "base", "chunk", "differ")
	e.Files = full.Files
	disk, err := s.otherBase(dir)
	if err != nil {
		return e, err
	}
	err = changeStream(s.path(dir, full), func(st *stream) error {
		st.frames = nil
		if err := st.fill(disk); err != nil {
			return err
		}
		st.trailer()
		return nil
	})
	if err == nil {
		err = s.again(dir, full)
	}
	if err == nil {
		e.from(s, full, Blind)
		e.blind(dir, s)
	}
	return e, err
}

// otherBase is the first disk's full with other bytes where no increment wrote: in
// data where there is such a place, else where the full has zeroes.
func (s Set) otherBase(dir string) ([]byte, error) {
	links := s.chainTo(s.newest())
	before, err := content(dir, links[:1])
	if err != nil {
		return nil, err
	}
	after, err := content(dir, links)
	if err != nil {
		return nil, err
	}
	var data, zeroes [][]byte
	for at := 0; at+unit <= min(len(before), len(after)); at += unit {
		b := before[at : at+unit]
		switch {
		case !bytes.Equal(b, after[at:at+unit]):
		case len(bytes.Trim(b, "\x00")) > 0:
			data = append(data, b)
		case len(zeroes) < 16:
			zeroes = append(zeroes, b)
		}
	}
	if len(data) == 0 {
		data = zeroes
	}
	for _, b := range data {
		for i := range b {
			b[i] ^= 0xff
		}
	}
	return before, nil
}

// traversal: whatever follows, no file may appear outside the output folder.
func traversal(dir string, s Set) (Expect, error) {
	e := s.expect()
	for _, t := range s.Points(s.Disks()[0]) {
		err := changeStream(s.path(dir, t), func(st *stream) error {
			st.meta.DiskName = "../../escape"
			return nil
		})
		if err != nil {
			return e, err
		}
		if err := s.again(dir, t); err != nil {
			return e, err
		}
		e.Files = append(e.Files, t.Files[0])
		e.of[key{t.Disk, t.Point}] = Right | Doubt | Refuse
	}
	return e, nil
}

// unzipTo lays out an archive's members, and removes it.
func unzipTo(path, dir string) error {
	z, err := zip.OpenReader(path)
	if err != nil {
		return err
	}
	err = errors.Join(os.CopyFS(dir, z), z.Close())
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return os.Remove(path)
}
