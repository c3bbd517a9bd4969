package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	"github.com/qbitkit/qbit/reconstruct/manifest"
	"github.com/qbitkit/qbit/reconstruct/plan"
)

// journalVersion is that of the journal's lines.
const journalVersion = 1

// A journal is what --resume keeps: a line of JSON for each file that was found
// sound, after one that says what the file is. It only grows. A line that was cut by
// a crash is passed over.
type journal struct {
	set  *set
	f    *os.File // nil: no journal is kept
	mu   sync.Mutex
	done map[string]journalLine
}

// A journalLine is a file that was found sound, and how to know it again.
type journalLine struct {
	File    string  `json:"file"`
	Format  string  `json:"format"`
	Size    int64   `json:"size"`
	Changed int64   `json:"mtime-ns"` // modification time, since 1970
	Inode   string  `json:"inode"`    // of the file system's; empty where it has none
	Second  bool    `json:"second-reader,omitempty"`
	Tree    string  `json:"xxh64-4m"`
	SHA256  string  `json:"sha256,omitempty"`
	Adler32 *uint32 `json:"adler32,omitempty"`
}

// A journalHead is the first line.
type journalHead struct {
	Version int `json:"qbit-verify-journal"`
}

// openJournal reads the journal at path and opens it for more; "": none is kept.
func openJournal(path string, s *set) (*journal, error) {
	j := &journal{set: s, done: map[string]journalLine{}}
	if path == "" {
		return j, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, plainError(path, err)
	}
	if err := j.load(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", escapeName(path), err)
	}
	j.f = f
	return j, nil
}

// load reads what is there, and begins a journal that is empty.
func (j *journal) load(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("the journal has to be a regular file")
	}
	if info.Size() == 0 {
		return appendLine(f, journalHead{journalVersion})
	}
	r := bufio.NewReader(f)
	if err := readHeadLine(r); err != nil {
		return err
	}
	for {
		line, err := r.ReadBytes('\n')
		if err == io.EOF {
			return j.endCut(f, line)
		}
		if err != nil {
			return err
		}
		var l journalLine
		if json.Unmarshal(line, &l) == nil {
			j.done[l.File] = l
		}
	}
}

// readHeadLine refuses a file that is no journal, before anything is added to it.
func readHeadLine(r *bufio.Reader) error {
	const longest = 200
	line, err := r.Peek(longest)
	if err != nil && err != io.EOF {
		return err
	}
	end := bytes.IndexByte(line, '\n')
	var head journalHead
	if end < 0 || json.Unmarshal(line[:end], &head) != nil || head.Version != journalVersion {
		return errors.New("it is there, and is no journal of qbit verify of this version")
	}
	_, err = r.Discard(end + 1)
	return err
}

// endCut ends a last line that was cut, so that the next one stands alone.
func (j *journal) endCut(f *os.File, line []byte) error {
	if len(line) == 0 {
		return nil
	}
	_, err := f.WriteString("\n")
	return err
}

// appendLine adds a line in one write.
func appendLine(f *os.File, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	return err
}

// identity fills in how to know a file again; false where it cannot be looked at.
func (j *journal) identity(f *fileReport, l *journalLine) bool {
	info, err := j.set.root.Stat(f.backup.Source.Path)
	if err != nil {
		return false
	}
	l.File, l.Format, l.Size, l.Changed, l.Inode = f.File, string(f.Format), info.Size(), info.ModTime().UnixNano(), inodeOf(info)
	return true
}

// knows says that a file was found sound, and has not been touched since.
func (j *journal) knows(f *fileReport) bool {
	l, ok := j.done[f.File]
	var now journalLine
	if !ok || !j.identity(f, &now) {
		return false
	}
	return l.Format == now.Format && l.Size == now.Size && l.Changed == now.Changed && l.Inode == now.Inode
}

// take fills the report of a file that the journal knows. It does not where it
// lacks something that is wanted now.
func (j *journal) take(f *fileReport, v *verifyCommand) bool {
	l := j.done[f.File]
	sum, err := strconv.ParseUint(l.Tree, 16, 64)
	if !j.knows(f) || err != nil || v.sha256 && l.SHA256 == "" || v.second && f.Format == plan.FormatQcow2 && !l.Second {
		return false
	}
	f.Tree, f.SHA256, f.Adler32 = l.Tree, l.SHA256, l.Adler32
	f.sum, f.summed = manifest.File{Size: f.Size, Sum: manifest.Sum(sum), SHA256: l.SHA256}, true
	return true
}

// add notes a file that was found sound.
func (j *journal) add(f *fileReport, second bool) error {
	l := journalLine{Tree: f.Tree, SHA256: f.SHA256, Adler32: f.Adler32, Second: second}
	if j.f == nil || !j.identity(f, &l) {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := appendLine(j.f, l); err != nil {
		return plainError(j.f.Name(), err)
	}
	return nil
}

func (j *journal) close() {
	if j.f != nil {
		j.f.Close()
	}
}
