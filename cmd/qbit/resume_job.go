package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/reconstruct"
)

// job says what the restored disk depends on: a journal of a restore of which one
// of these was another cannot be gone on with.
func (r *restoreCommand) job(o *opener, ch *chain) ([]reconstruct.ResumeFact, error) {
	var job []reconstruct.ResumeFact
	add := func(is string, what string, args ...any) {
		job = append(job, reconstruct.ResumeFact{What: fmt.Sprintf(what, args...), Is: is})
	}
	form, err := r.target.form()
	if err != nil {
		return nil, err
	}
	add(form, "the target")
	if r.resume.point != "" {
		add(r.resume.point, "the point")
	}
	add(strconv.Itoa(len(ch.links)), "the number of links")
	for i, l := range ch.layers {
		add(linkIdentity(l), "link %d", i+1)
		if changed := ch.links[i].Changed; changed != nil {
			add(bitmapIdentity(changed), "what changed by link %d", i+1)
		}
	}
	for i, f := range o.files {
		is, err := fileIdentity(f.Name(), f.Stat)
		if err != nil {
			return nil, err
		}
		add(is, "file %d", i+1)
	}
	return job, nil
}

// form is the target and how it is written.
func (t *targetFlags) form() (string, error) {
	zeros := "zeros as holes"
	if t.keepZeros {
		zeros = "zeros as stored"
	}
	if t.onto == "" {
		return "a raw file, " + zeros, nil
	}
	path, err := filepath.Abs(t.onto)
	return fmt.Sprintf("%q, %s", path, zeros), err
}

// linkIdentity is how a link is read. The folder does not matter: what was mounted
// elsewhere is the same.
func linkIdentity(l *layer) string {
	is := fmt.Sprintf("%q as %s", filepath.Base(l.path), l.format)
	if l.snapshot != "" {
		is += fmt.Sprintf(", snapshot %q", l.snapshot)
	}
	return is
}

// fileIdentity is how to know again a file that is read.
func fileIdentity(path string, stat func() (os.FileInfo, error)) (string, error) {
	info, err := stat()
	if err != nil {
		return "", plainError(path, err)
	}
	if !info.Mode().IsRegular() {
		return "", usagef("--resume: %s is no regular file, and nothing would tell that it changed meanwhile", escapeName(path))
	}
	is := fmt.Sprintf("%q of %d bytes, written %s", filepath.Base(path), info.Size(), info.ModTime().UTC().Format(time.RFC3339Nano))
	// The number of the device may be another after the host was started again.
	if _, inode, known := strings.Cut(inodeOf(info), ":"); known {
		is += ", inode " + inode
	}
	return is, nil
}

// bitmapIdentity names a bitmap by its content.
func bitmapIdentity(b *bitmap.Bitmap) string {
	h := xxhash.New()
	var p [16]byte
	for r := range b.Ranges() {
		binary.BigEndian.PutUint64(p[:], uint64(r.Off))
		binary.BigEndian.PutUint64(p[8:], uint64(r.Len))
		h.Write(p[:])
	}
	return fmt.Sprintf("a bitmap of granularity %d, xxh64 %016x", b.Granularity(), h.Sum64())
}
