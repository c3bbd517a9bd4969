package sets

import (
	"archive/zip"
	"bytes"
	"fmt"
	"hash/adler32"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// frozenNames are the sets that virtnbdbackup 1.9.15 itself wrote.
var frozenNames = []string{"plain", "lz4", "zip", "zip-lz4", "copy", "diff", "rawdisk", "resize", "chunked", "other"}

func virtnbdSets() []Set {
	var sets []Set
	for _, name := range frozenNames {
		sets = append(sets, frozen(name))
	}
	return append(sets, offline(),
		derived("chksum", "plain", eachStream(nil), checksums),
		derived("lz4-notrailer", "lz4", eachStream(func(s *stream) error { s.tail = nil; return nil })),
		derived("v1", "plain", eachStream(toVersion1)),
		derived("zip-chain", "plain", zipped),
		lossy(), lost(), badChecksums())
}

// offline is what version 1.9.15 makes of an increment while the machine is off:
// it has no checkpoint of its own, and overwrites the last increment's file.
func offline() Set {
	s := frozen("offline")
	last := s.Truth[2]
	last.Parent = s.Truth[0].Point
	last.Wants = Refuse | Doubt
	s.Truth = append(slices.Clone(s.Truth[:1]), last)
	return s
}

// An edit changes a set that was laid out.
type edit func(s *Set, dir string) error

// derived is a frozen set with edits, which stand for other versions of the tool.
func derived(name, from string, edits ...edit) Set {
	s := frozen(from)
	s.Name = "virtnbd-" + name
	s.Zip = strings.HasPrefix(name, "zip")
	lay := s.parts
	s.parts = func(s *Set, dir string) error {
		if err := lay(s, dir); err != nil {
			return err
		}
		for _, e := range edits {
			if err := e(s, dir); err != nil {
				return err
			}
		}
		return nil
	}
	return s
}

// eachStream has every stream of the set changed; nil leaves it.
func eachStream(change func(*stream) error) edit {
	return func(s *Set, dir string) error {
		for _, t := range s.Truth {
			if change == nil {
				break
			}
			if err := changeStream(filepath.Join(dir, t.Files[0]), change); err != nil {
				return err
			}
		}
		return nil
	}
}

func changeStream(path string, change func(*stream) error) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	s, err := parseStream(b)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := change(s); err != nil {
		return err
	}
	return os.WriteFile(path, s.encode(), 0o644)
}

// checksums adds what version 2 writes beside each stream.
func checksums(s *Set, dir string) error {
	for _, t := range s.Truth {
		if err := checksum(filepath.Join(dir, t.Files[0])); err != nil {
			return err
		}
	}
	return nil
}

func checksum(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path+".chksum", fmt.Append(nil, adler32.Checksum(b)), 0o644)
}

// badChecksums is what some releases wrote instead: the name of a variable.
func badChecksums() Set {
	s := derived("badchksum", "plain", func(s *Set, dir string) error {
		for _, t := range s.Truth {
			if err := put(dir, t.Files[0]+".chksum", "{checksum}"); err != nil {
				return err
			}
		}
		return nil
	})
	s.Wants = Right | Doubt
	return s
}

// toVersion1 is the stream before there was compression.
func toVersion1(s *stream) error {
	m := &s.meta
	m.StreamVersion, m.StreamVersion1 = 0, 1
	m.Compressed, m.CompressionMethod, m.DiskFormat = nil, "", ""
	if m.ParentCheckpoint == "" {
		m.ParentCheckpoint = false
	}
	return nil
}

// zipped packs the folder as virtnbdbackup packs its output: stored, and with a
// member for the folder of checkpoints.
func zipped(s *Set, dir string) error {
	out, err := os.CreateTemp(filepath.Dir(dir), "zip")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	w := zip.NewWriter(out)
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		return zipMember(w, dir, path, d.IsDir())
	})
	if err == nil {
		err = w.Close()
	}
	if closed := out.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = emptyDir(dir)
	}
	if err != nil {
		return err
	}
	return os.Rename(out.Name(), s.Path(dir))
}

func zipMember(w *zip.Writer, dir, path string, isDir bool) error {
	name, err := filepath.Rel(dir, path)
	if err != nil {
		return err
	}
	name = filepath.ToSlash(name)
	if isDir {
		name += "/"
	}
	member, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store, Modified: stamp})
	if err != nil || isDir {
		return err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	_, err = member.Write(b)
	return err
}

func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// unit is what a dirty bitmap's bit stands for here.
const unit = 64 << 10

// lossy is how version 2.21 and later write increments: dirty ranges that read as
// zeroes are left out, and only the log says so.
func lossy() Set {
	s := derived("lossy", "plain", dropZeroes, checksums)
	for i := range s.Truth {
		t := &s.Truth[i]
		t.Lossy = t.Parent != "" && !(t.Disk == "vdb" && t.Point == "virtnbdbackup.1")
	}
	return s
}

func dropZeroes(s *Set, dir string) error {
	for _, t := range s.Truth {
		if t.Parent == "" {
			continue
		}
		dropped := int64(0)
		err := changeStream(filepath.Join(dir, t.Files[0]), func(s *stream) error {
			kept := splitZeroes(s.frames)
			all := s.frames
			s.frames = slices.DeleteFunc(kept, func(f frame) bool { return f.kind == "zero" })
			dropped = length(all) - length(s.frames)
			return nil
		})
		if err != nil {
			return err
		}
		if err := logSparse(dir, t, dropped); err != nil {
			return err
		}
	}
	return nil
}

func length(frames []frame) (n int64) {
	for _, f := range frames {
		n += f.length
	}
	return n
}

// splitZeroes turns units of zeroes within uncompressed data into zero frames.
func splitZeroes(frames []frame) []frame {
	zeroes := make([]byte, unit)
	var out []frame
	for _, f := range frames {
		for at := int64(0); f.kind == "data" && at < f.length; at += unit {
			b := f.data[at:min(at+unit, f.length)]
			kind := "data"
			if bytes.Equal(b, zeroes[:len(b)]) {
				kind = "zero"
			}
			out = append(out, frame{kind, f.start + at, int64(len(b)), b})
		}
		if f.kind == "zero" {
			out = append(out, f)
		}
	}
	return out
}

// logSparse adds the line by which that version's log tells what was left out.
func logSparse(dir string, t Truth, dropped int64) error {
	logs, err := filepath.Glob(filepath.Join(dir, "backup.inc.*.log"))
	if err != nil || dropped == 0 {
		return err
	}
	slices.Sort(logs)
	i := int(t.Point[len(t.Point)-1]-'0') - 1
	f, err := os.OpenFile(logs[i], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, "INFO: Detected %d bytes [%d.0KiB] sparse blocks for current bitmap. [%s]\n", dropped, dropped>>10, t.Disk)
	return err
}

// lost is the set of a machine whose tracking was lost before the third backup:
// the tool saved all of the disks, under the names of an increment.
func lost() Set {
	s := derived("lost", "plain", func(_ *Set, dir string) error {
		plain := frozen("plain")
		for _, disk := range plain.Disks() {
			if err := plain.fullUnderInc(dir, plain.Point(disk, lostAt)); err != nil {
				return err
			}
		}
		return nil
	})
	for i := range s.Truth {
		if t := &s.Truth[i]; t.Point == lostAt {
			t.Kind, t.Parent = "full", ""
		}
	}
	return s
}

const lostAt = "virtnbdbackup.2"

// fullUnderInc replaces an increment by a full stream of the same moment: its meta
// says that it is no increment, and what reads as zeroes has zero frames.
func (s *Set) fullUnderInc(dir string, t Truth) error {
	disk, err := content(dir, s.chainTo(t))
	if err != nil {
		return err
	}
	return changeStream(filepath.Join(dir, t.Files[0]), func(st *stream) error {
		st.meta.Incremental, st.meta.ParentCheckpoint = false, ""
		st.frames = nil
		if err := st.fill(disk); err != nil {
			return err
		}
		st.trailer()
		return nil
	})
}

// fill makes the frames of a full backup: extents of data and of zeroes in turn.
func (s *stream) fill(disk []byte) error {
	zeroes := make([]byte, unit)
	isZero := func(at int) bool {
		b := disk[at:min(at+unit, len(disk))]
		return bytes.Equal(b, zeroes[:len(b)])
	}
	for at := 0; at < len(disk); {
		end := at
		for end < len(disk) && isZero(end) == isZero(at) {
			end = min(end+unit, len(disk))
		}
		if isZero(at) {
			s.frames = append(s.frames, frame{"zero", int64(at), int64(end - at), nil})
		} else if err := s.put(int64(at), disk[at:end]); err != nil {
			return err
		}
		at = end
	}
	return nil
}
