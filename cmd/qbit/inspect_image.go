package main

import (
	"context"
	"errors"
	"math/bits"

	"github.com/qbitkit/qbit/qcow2"
)

// An inspection is the look at one image.
type inspection struct {
	ctx    context.Context
	file   *imageFile
	policy uploadPolicy
	report *inspectReport
}

// look fills the report. Its error is one of reading the file.
func (in *inspection) look(opts *qcow2.Options) error {
	ours, err := isQcow2(in.file)
	if err != nil {
		return err
	}
	if !ours {
		return in.judgeForeign()
	}
	in.report.Format = formatQcow2
	img, err := qcow2.Open(in.file, in.file.size, opts)
	if err != nil {
		return in.report.addError(err)
	}
	size := img.Size()
	in.report.VirtualSize = &size
	in.judgeNames(img)
	in.judgeHeader(img)
	for _, judge := range []func(*qcow2.Image) error{in.judgeSnapshots, in.judgeBitmaps, in.judgeData, in.judgeSignatures} {
		if err := in.report.addError(judge(img)); err != nil {
			return err
		}
		if err := in.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// judgeHeader judges features, extensions, encryption and sizes.
func (in *inspection) judgeHeader(img *qcow2.Image) {
	r, h := in.report, img.Header()
	if img.Corrupt() {
		r.add(ruleCorrupt, "the corrupt bit is set: a program found the image broken")
	}
	if img.Dirty() {
		r.add(ruleDirty, "the dirty bit is set: whoever opens the image for writing repairs it first, which takes time")
	}
	unknown := bits.OnesCount64(h.CompatibleFeatures&^qcow2.CompatLazyRefcounts) +
		bits.OnesCount64(h.AutoclearFeatures&^(qcow2.AutoclearBitmaps|qcow2.AutoclearRawData))
	if unknown > 0 {
		r.add(ruleBits, "%d feature bits are set that the specification does not have; they may be ignored", unknown)
	}
	for _, e := range img.Extensions() {
		if e.Name() == "unknown" {
			r.add(ruleExtension, "a header extension of the unknown type %#x with %d bytes", e.Type, len(e.Data))
		}
	}
	in.judgeEncryption(img)
	if most := int64(in.policy.maxVirtualSize); most > 0 && img.Size() > most {
		r.add(ruleSize, "the disk has %d bytes, %d are accepted", img.Size(), most)
	}
	in.judgeRefcounts(&h)
}

func (in *inspection) judgeEncryption(img *qcow2.Image) {
	switch rule := ruleEncrypted; img.Encryption() {
	case "aes":
		in.report.add(ruleLegacyAES, "it is encrypted with the old AES method, which is broken and which QEMU's emulators refuse")
	case "luks":
		if in.policy.encrypted {
			rule = rule.note()
		}
		in.report.add(rule, "the guest's data is encrypted with LUKS: nobody without the passphrase can look at it")
	}
}

// judgeRefcounts judges where the refcount table stands, which reading does not need.
func (in *inspection) judgeRefcounts(h *qcow2.Header) {
	n, at := uint64(h.RefcountTableClusters)<<h.ClusterBits, uint64(h.RefcountTableOffset)
	rule := ruleBroken
	rule.cves = fieldCVEs["refcount_table_offset"]
	switch {
	case n == 0:
		in.report.add(rule, "there is no refcount table")
	case at == 0 || at > uint64(in.file.size) || n > uint64(in.file.size)-at:
		in.report.add(rule, "the refcount table (%d bytes at %#x) is not in the file (%d bytes)", n, at, in.file.size)
	}
}

// judgeSnapshots lists the snapshots, and looks where their tables stand.
func (in *inspection) judgeSnapshots(img *qcow2.Image) error {
	for s, err := range img.EachSnapshot() {
		if err != nil {
			return err
		}
		in.report.add(ruleSnapshots, "the internal snapshot %s holds an older state of the disk", quote(clipName(s.Name)))
		if s.VMStateSize > 0 {
			in.report.add(ruleVMState, "the snapshot %s holds the memory and devices of a running guest (%d bytes), which a host would load",
				quote(clipName(s.Name)), s.VMStateSize)
		}
		if _, err := img.OpenSnapshot(s); err != nil {
			if err := in.report.addError(err); err != nil {
				return err
			}
		}
		if err := in.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// clipName is a name for a message, escaped and not too long.
func clipName(name string) string {
	const most = 100
	if len(name) > most {
		return escapeName(name[:most]) + "…"
	}
	return escapeName(name)
}

// judgeBitmaps lists the bitmaps and follows their tables.
func (in *inspection) judgeBitmaps(img *qcow2.Image) error {
	counter := img.DirtyCounter()
	for b, err := range img.EachBitmap() {
		if err != nil {
			return err
		}
		in.report.add(ruleBitmaps, "the dirty bitmap %s is of no use to who does not know the disk before", quote(clipName(b.Name)))
		if _, err := counter.Count(b); err != nil {
			if err := in.report.addError(err); err != nil || errors.As(err, new(*qcow2.LimitError)) {
				return err
			}
		}
		if err := in.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// judgeData follows the tables of the active disk. It does not read the data.
func (in *inspection) judgeData(img *qcow2.Image) error {
	if img.DataFile() != nil || img.Encryption() != "" {
		return nil // the data is elsewhere, or nobody can know it
	}
	var plain, packed int64
	for e, err := range img.Extents(0, img.Size()) {
		if err != nil {
			return err
		}
		switch e.Kind {
		case qcow2.Data:
			plain += e.Len
		case qcow2.Compressed:
			packed += e.Len
		}
		if err := in.ctx.Err(); err != nil {
			return err
		}
	}
	in.judgeStored(plain, packed)
	return nil
}

// judgeStored compares what is said to be stored with the file.
func (in *inspection) judgeStored(plain, packed int64) {
	stored, size := plain+packed, in.file.size
	in.report.StoredSize = &stored
	if plain > size {
		in.report.add(ruleShared, "%d bytes of plain data in a file of %d bytes: clusters are used more than once, so that a copy grows", plain, size)
	}
	if stored/in.policy.maxRatio > size {
		in.report.add(ruleRatio, "%d bytes of guest data in a file of %d bytes, more than %d times as much", stored, size, in.policy.maxRatio)
	}
}
