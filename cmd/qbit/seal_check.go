package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/manifest"
	"github.com/qbitkit/qbit/reconstruct/plan"
)

// hashFile computes the checksums of a file, or member of an archive, that the
// options name. A file that changes meanwhile is an error.
func hashFile(ctx context.Context, f *imageFile, opts *reconstruct.CopyOptions) (manifest.File, error) {
	sums := manifest.File{Size: f.size}
	res, err := reconstruct.Copy(ctx, nil, reconstruct.NewRaw(f.content(), f.size, nil), opts)
	if err != nil {
		return sums, plainError(f.path, err)
	}
	for _, d := range res.Digests {
		switch d.Name {
		case reconstruct.Tree:
			sums.Sum = manifest.Sum(binary.BigEndian.Uint64(d.Sum))
		case reconstruct.SHA256:
			sums.SHA256 = hex.EncodeToString(d.Sum)
		}
	}
	return sums, f.unchanged()
}

// unchanged finds a file that was written to since it was opened.
func (f *imageFile) unchanged() error {
	now, err := f.File.Stat()
	switch {
	case err != nil:
		return plainError(f.path, err)
	case now.Size() != f.info.Size(), !now.ModTime().Equal(f.info.ModTime()):
		return fmt.Errorf("%s: it was changed while it was read", escapeName(f.path))
	}
	return nil
}

// check compares the files of a point that is sealed already with the manifest.
func (w *sealWork) check(ctx context.Context, d *plan.Disk, sealed *manifest.Disk, p *manifest.Point, b *plan.Backup) error {
	why, err := w.checkFiles(ctx, p, b)
	if err != nil {
		return err
	}
	if msg := w.checkParent(d, sealed, p, b); msg != "" {
		why = append(why, msg)
	}
	if len(why) > 0 {
		w.failed = true
		w.tellPoint(d, b, p, stateChanged, why...)
		return nil
	}
	state := stateKept
	if w.k.recheck {
		state = stateChecked
	}
	w.tellPoint(d, b, p, state)
	return nil
}

// checkFiles says how the files differ from what was sealed.
func (w *sealWork) checkFiles(ctx context.Context, p *manifest.Point, b *plan.Backup) (why []string, err error) {
	for _, f := range p.Files {
		at := f
		if len(p.Files) == 1 {
			at.Path, at.Member = b.Source.Path, b.Source.Member // it may have been renamed
		}
		file, err := w.s.open(plan.Source{Path: at.Path, Member: at.Member})
		if err != nil {
			why = append(why, err.Error())
			continue
		}
		msg, err := w.checkFile(ctx, f, file)
		file.Close()
		if err != nil {
			return nil, err
		}
		if msg != "" {
			why = append(why, fmt.Sprintf("%s: %s", escapeName(file.path), msg))
		}
	}
	return why, nil
}

func (w *sealWork) checkFile(ctx context.Context, f manifest.File, file *imageFile) (string, error) {
	if file.size != f.Size {
		return fmt.Sprintf("it has %d bytes; when it was sealed it had %d", file.size, f.Size), nil
	}
	if !w.k.recheck {
		return "", nil
	}
	opts := w.fileOptions(f.Size)
	if f.SHA256 != "" && !w.k.sha256 {
		opts.Digests = append(opts.Digests, reconstruct.SHA256)
	}
	now, err := hashFile(ctx, file, opts)
	if err != nil {
		return "", err
	}
	return differsFrom(f, now), nil
}

// differsFrom says how the checksums of a file differ from the sealed ones; "": they
// do not.
func differsFrom(sealed, now manifest.File) string {
	switch {
	case sealed.Size != now.Size:
		return fmt.Sprintf("it has %d bytes; when it was sealed it had %d", now.Size, sealed.Size)
	case sealed.Sum != now.Sum:
		return fmt.Sprintf("it is not the file that was sealed: xxh64-4m is %s, was %s", now.Sum, sealed.Sum)
	case sealed.SHA256 != "" && now.SHA256 != "" && sealed.SHA256 != now.SHA256:
		return fmt.Sprintf("it is not the file that was sealed: sha256 is %s, was %s", now.SHA256, sealed.SHA256)
	}
	return ""
}

// checkParent says that a backup is now taken to stand on another one.
func (w *sealWork) checkParent(d *plan.Disk, sealed *manifest.Disk, p *manifest.Point, b *plan.Backup) string {
	route, err := d.Route(b, true)
	switch {
	case err != nil:
		return err.Error()
	case p.Parent == nil:
		return ""
	case len(route) == 1:
		return fmt.Sprintf("it is taken for a whole backup; when it was sealed it stood on %s", escapeName(p.Parent.ID))
	}
	parent := route[len(route)-2]
	if now := sealedPoint(sealed, d, parent); now == nil || now.ID != p.Parent.ID {
		return fmt.Sprintf("it is taken to stand on %s; when it was sealed it stood on %s", escapeName(parent.ID), escapeName(p.Parent.ID))
	}
	return ""
}

// content is the bytes of a file; where it is no member of an archive they can tell
// their holes.
func (f *imageFile) content() io.ReaderAt {
	if f.member != nil {
		return f.member
	}
	return f.File
}
