package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
)

// A convertTarget is where the disk goes.
type convertTarget struct {
	reconstruct.Target
	image *newImage           // nil: raw
	data  *reconstruct.Output // the external data file; nil: there is none
	only  reconstruct.Selection
}

// Abort gives up what was not committed.
func (t *convertTarget) Abort() error {
	err := t.Target.Abort()
	if t.data != nil {
		err = errors.Join(err, t.data.Abort())
	}
	return err
}

// convert writes DST.
func (v *convertCommand) convert(ctx context.Context, c *console, o *opener, src *convertSource, path string) error {
	if v.bitmaps {
		if _, err := src.top(); err != nil {
			return err
		}
	}
	dst, err := v.open(ctx, c, o, src, path)
	if err != nil {
		return err
	}
	defer dst.Abort()
	result, err := v.copy(ctx, c, o, src, dst)
	if err != nil {
		return err
	}
	var names []string
	if v.bitmaps {
		if names, err = v.carryBitmaps(c, src, dst.image); err != nil {
			return err
		}
	}
	if err := dst.Commit(); err != nil {
		return plainError(path, err)
	}
	return v.report(c, path, names, result)
}

func (v *convertCommand) copy(ctx context.Context, c *console, o *opener, src *convertSource, dst *convertTarget) (*reconstruct.Result, error) {
	var cache cacheKeeper
	if v.around(v.cacheIn) {
		cache = keepCache(o.files)
	}
	m := newMeter(c, &v.progressFlags, "convert", src.disk.Size())
	defer m.clearLine()
	result, err := reconstruct.Copy(ctx, dst.Target, src.disk, &reconstruct.CopyOptions{
		Workers: v.workers, Memory: int64(v.memory), KeepZeros: v.sparse == 0, Digests: digestNames(v.digests),
		Share: v.offload && v.sparse != 0, DigestsIfRead: !v.asked(), Only: dst.only,
		Progress: func(p reconstruct.Progress) { m.Set(p.Done); cache.passed(p.Read) },
	})
	cache.end()
	if err != nil {
		return nil, src.nameError(err)
	}
	m.Finish()
	return result, nil
}

// open makes DST.
func (v *convertCommand) open(ctx context.Context, c *console, o *opener, src *convertSource, path string) (*convertTarget, error) {
	inputs, err := o.inputs()
	if err != nil {
		return nil, err
	}
	output := reconstruct.OutputOptions{Overwrite: v.force, Inputs: inputs, Direct: v.around(v.cacheOut)}
	switch {
	case v.existing:
		return v.openExisting(c, path, src.disk.Size(), inputs)
	case v.to == formatRaw:
		return v.createRaw(path, src.disk.Size(), &output)
	}
	return v.createQcow2(ctx, c, src, path, output)
}

// createQcow2 makes a new qcow2 image, with what belongs to it.
func (v *convertCommand) createQcow2(ctx context.Context, c *console, src *convertSource, path string, output reconstruct.OutputOptions) (*convertTarget, error) {
	spec := imageSpec{path: path, layout: v.layout(src.disk.Size()), compress: v.plain, block: v.block(), output: output}
	if spec.layout.ClusterSize == 0 {
		spec.layout.ClusterSize = qcow2.DefaultClusterSize
	}
	t := &convertTarget{}
	var err error
	if v.backing != "" {
		below, err := v.openBacking(c, src, path)
		if err != nil {
			return nil, err
		}
		defer below.close()
		more, err := below.inputs()
		if err != nil {
			return nil, err
		}
		spec.output.Inputs = append(spec.output.Inputs, more...)
		spec.layout.Backing = &qcow2.Ref{Kind: qcow2.RefBacking, Name: v.backing, Format: below.format}
		if t.only, err = v.differs(ctx, c, src, below, spec.layout.ClusterSize); err != nil {
			return nil, err
		}
	}
	if v.image.dataFile != "" {
		if t.data, err = v.createData(path, &spec.output); err != nil {
			return nil, err
		}
		spec.layout.DataFile = &qcow2.DataFileLayout{File: t.data.Storage(), Name: v.image.dataFile, Raw: v.image.dataFileRaw}
		spec.data = t.data
	}
	if t.image, err = createImage(c, spec); err != nil {
		if t.data != nil {
			t.data.Abort()
		}
		return nil, err
	}
	t.Target = v.zeroing(t.image.dst)
	return t, nil
}

// block is in what blocks zeros are looked for.
func (v *convertCommand) block() int64 {
	if v.sparse <= 0 {
		return 4096
	}
	return 1 << bits.Len64(uint64(v.sparse)-1)
}

// createData makes the external data file.
func (v *convertCommand) createData(path string, output *reconstruct.OutputOptions) (*reconstruct.Output, error) {
	name, err := plainPath(v.image.dataFile, path)
	if err != nil {
		return nil, usagef("-o data_file=%s: %w", escapeName(v.image.dataFile), err)
	}
	if filepath.Clean(name) == filepath.Clean(path) {
		return nil, usagef("-o data_file=%s: it is DST itself", escapeName(v.image.dataFile))
	}
	out, err := reconstruct.CreateOutput(name, output)
	if err != nil {
		return nil, v.cannotCreate(name, err)
	}
	return out, nil
}

// cannotCreate says what can be done about DST, which cannot be made.
func (v *convertCommand) cannotCreate(path string, err error) error {
	info, statErr := os.Stat(path)
	if errors.Is(err, fs.ErrExist) && statErr == nil && info.Mode()&fs.ModeDevice != 0 {
		return fmt.Errorf("%w; -n writes into a device", plainError(path, err))
	}
	return cannotCreate(path, v.force, err)
}

// createRaw makes a new raw file.
func (v *convertCommand) createRaw(path string, size int64, output *reconstruct.OutputOptions) (*convertTarget, error) {
	dst, err := reconstruct.CreateOutput(path, output)
	if err != nil {
		return nil, v.cannotCreate(path, err)
	}
	err = dst.File().Truncate(size)
	if err == nil && v.image.preallocation == "falloc" && size > 0 {
		err = allocate(dst.File(), size)
	}
	if err != nil {
		dst.Abort()
		return nil, plainError(path, err)
	}
	return &convertTarget{Target: v.zeroing(reconstruct.NewFileTarget(dst, rawFile{dst.Storage(), v.block()}))}, nil
}

// rawFile is the content of a new raw file, which is zero where nothing is written.
type rawFile struct {
	qcow2.File
	block int64
}

func (r rawFile) Traits() reconstruct.Traits                      { return reconstruct.Traits{Block: r.block} }
func (r rawFile) Zero(off, n int64) error                         { return nil }
func (r rawFile) Close() error                                    { return nil }
func (r rawFile) Place(off, n int64) (host, run int64, err error) { return off, n, nil }

// openExisting opens a device or raw file that is there.
func (v *convertCommand) openExisting(c *console, path string, size int64, inputs []fs.FileInfo) (*convertTarget, error) {
	dst, err := reconstruct.OpenOnto(path, size, inputs)
	if err != nil {
		return nil, plainError(path, err)
	}
	if v.around(v.cacheOut) {
		if err := dst.Direct(); err != nil {
			dst.Abort()
			return nil, v.cannotCreate(path, err)
		}
	}
	if n := dst.Beyond(); n > 0 {
		c.note("%s: it is larger than the disk; its last %s stay as they are", escapeName(path), formatSize(n))
	}
	if v.zeroed {
		return &convertTarget{Target: zeroedTarget{dst}}, nil
	}
	return &convertTarget{Target: v.zeroing(dst)}, nil
}

// A zeroedTarget reads as zero before anything is written.
type zeroedTarget struct{ reconstruct.Target }

func (zeroedTarget) Zero(off, n int64) error { return nil }

// zeroing is a target that stores zeros as data, where that is wanted.
func (v *convertCommand) zeroing(t reconstruct.Target) reconstruct.Target {
	if v.sparse == 0 || v.to == formatRaw && v.image.preallocation == "full" {
		return filledTarget{t}
	}
	return t
}

// A filledTarget stores zeros as data.
type filledTarget struct{ reconstruct.Target }

var someZeros [1 << 20]byte

func (f filledTarget) Zero(off, n int64) error {
	for n > 0 {
		part := min(n, int64(len(someZeros)))
		if _, err := f.WriteAt(someZeros[:part], off); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

// Traits are those of the target below.
func (f filledTarget) Traits() reconstruct.Traits {
	if t, ok := f.Target.(interface{ Traits() reconstruct.Traits }); ok {
		return t.Traits()
	}
	return reconstruct.Traits{}
}
