package fuzz

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"runtime"
	"testing"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/crash"
)

// Limits of what FuzzEditor lets an Editor do to one image.
const (
	editAlloc        = 24 << 20 // bytes allocated, freed or not, and
	editAllocPerByte = 512      // for each byte of the file
	editRead         = 4 << 20  // bytes read, and
	editReadPerByte  = 64       // for each byte of the file
	maxEditDisk      = 64 << 20 // larger disks are not worked with
)

// editSeeds are small images with all that an Editor has to keep.
func editSeeds(f *testing.F) [][]byte {
	bitmaps := []build.Bitmap{
		{Name: "a", Dirty: []build.Range{{Off: 512, Len: 3000}}},
		{Name: "in use", Flags: build.InUse, Dirty: []build.Range{{Off: 0, Len: 512}}},
		{Name: "b", GranularityBits: 12, Flags: build.Auto, Literal: true},
	}
	clusters := map[uint64]build.Cluster{0: {Form: build.Normal}, 2: {Form: build.Packed}, 3: {Form: build.ZeroPlain}, 70: {Form: build.Normal}}
	snapshots := []build.Snapshot{{ID: "1", Copy: true}, {ID: "2", Clusters: map[uint64]build.Cluster{5: {Form: build.Normal}}}}
	specs := []build.Spec{
		{Size: 80 * 512, Clusters: clusters, Bitmaps: bitmaps, Snapshots: snapshots},
		{Size: 80 * 512, Clusters: clusters, RefcountBits: 1, Bitmaps: bitmaps},
		{Size: 80*512 + 9, Clusters: clusters, RefcountBits: 64, Backing: "base"},
		{Size: 80 * 512, CryptMethod: 2, Bitmaps: bitmaps[:1]},
		{Size: 80 * 512, Bitmaps: bitmaps, StaleBitmaps: true},
		{Size: 80 * 512, Bitmaps: bitmaps, DataFile: &build.DataFile{Name: "d"}},
		{Size: 80 * 512, ClusterBits: 10, Bitmaps: bitmaps, HeaderLength: 112, Extensions: []build.Extension{{Type: 0x1234, Data: make([]byte, 400)}},
			FeatureNames: []build.Feature{{Kind: 0, Bit: 0, Name: "dirty"}}},
	}
	var files [][]byte
	for _, s := range specs {
		files = append(files, build.Must(s).Bytes)
	}
	for _, b := range seedFiles(f) {
		if len(b) <= maxSeed/2 {
			files = append(files, b)
		}
	}
	return files
}

// FuzzEditor changes the bitmaps of any image. Properties: no panic; memory and
// reads follow the size of the file; an error leaves the file's bytes alone; after
// a success the guest reads as before, no byte of a table or of data that
// something refers to has changed, bitmaps that were not named are what they
// were, and the new ones can be loaded. The same guest is read in what a crash
// leaves of it.
func FuzzEditor(f *testing.F) {
	for i, b := range editSeeds(f) {
		for op := range uint8(editOps) {
			if i < 7 || int(op) == i%editOps {
				f.Add(b, op)
			}
		}
	}
	f.Fuzz(func(t *testing.T, file []byte, op uint8) {
		img, err := qcow2.Open(bytes.NewReader(file), int64(len(file)), nil)
		if err != nil || img.Size() > maxEditDisk {
			return
		}
		x := &edit{t: t, file: file, before: guestOf(img), bitmaps: loadAll(img), f: crash.New(file)}
		x.audit, _ = build.AuditFile(bytes.NewReader(file), int64(len(file)))
		x.run(op)
	})
}

// An edit is one transaction on one image.
type edit struct {
	t       *testing.T
	file    []byte
	before  uint64 // the guest
	bitmaps map[string]*bitmap.Bitmap
	audit   *build.Audit
	f       *crash.File

	named map[string]*bitmap.Bitmap // what the transaction changed; nil: removed
	all   bool                      // it dropped everything
	twice map[string]bool           // names that more than one bitmap has
}

func (x *edit) run(op uint8) {
	var read int64
	x.f.Guard(func(op crash.Op) error {
		if op.Kind == crash.Read {
			read += op.Len
		}
		return nil
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := x.update(op)
	runtime.ReadMemStats(&after)
	x.f.Guard(nil)
	if got, bound := after.TotalAlloc-before.TotalAlloc, editAlloc+editAllocPerByte*uint64(len(x.file)); got > bound {
		x.t.Fatalf("%d bytes were allocated for a file of %d bytes, the bound is %d", got, len(x.file), bound)
	}
	if bound := editRead + editReadPerByte*int64(len(x.file)); read > bound {
		x.t.Fatalf("%d bytes were read of a file of %d bytes, the bound is %d", read, len(x.file), bound)
	}
	if err != nil {
		if ops := x.f.Ops(); len(ops) > 0 {
			x.t.Fatalf("%v, after %v", err, ops)
		}
		return
	}
	x.after()
	x.crash()
}

// editOps is how many kinds of transactions there are.
const editOps = 9

func (x *edit) update(op uint8) error {
	x.named, x.twice = map[string]*bitmap.Bitmap{}, map[string]bool{}
	e, err := qcow2.Edit(x.f, x.f.Size(), nil)
	if err != nil {
		return err
	}
	return e.Update(func(tx *qcow2.Tx) error {
		list, err := tx.Bitmaps()
		if err != nil && op%editOps < 7 {
			return err
		}
		return x.change(tx, list, op, e.Image().Size())
	})
}

// change does what op says.
func (x *edit) change(tx *qcow2.Tx, list []qcow2.BitmapInfo, op uint8, size int64) error {
	bits, err := bitmap.New(size, 512)
	if err != nil {
		return err
	}
	for off := int64(0); off < size; off += 1536 {
		bits.Set(off, 1)
	}
	add := func(name string) error {
		err := tx.AddBitmap(name, bits, op&64 != 0)
		if err == nil {
			x.named[name] = bits
		}
		return err
	}
	names := map[string]int{}
	for _, info := range list {
		names[info.Name]++
		x.twice[info.Name] = names[info.Name] > 1
	}
	name := ""
	if len(list) > 0 {
		name = list[int(op/editOps)%len(list)].Name
	}
	switch op % editOps {
	case 0:
		return add("fuzz")
	case 1:
		bits.Clear()
		return add("fuzz")
	case 2:
		x.named[name] = bits
		return tx.ReplaceBitmap(name, bits)
	case 3:
		x.named[name] = nil
		return tx.RemoveBitmap(name)
	case 4:
		x.named[name], x.named["renamed"] = nil, x.bitmaps[name]
		return tx.RenameBitmap(name, "renamed")
	case 5:
		x.named[name] = x.bitmaps[name]
		return tx.SetBitmapAuto(name, op&128 != 0)
	case 6:
		x.named[name] = nil
		return errors.Join(tx.RemoveBitmap(name), add("one"), add("two"))
	case 7:
		x.all = true
		return tx.DropBitmaps()
	default:
		x.all = true
		return errors.Join(tx.DropBitmaps(), add("fuzz"))
	}
}

// after checks the file after a success.
func (x *edit) after() {
	img, err := qcow2.Open(x.f, x.f.Size(), nil)
	if err != nil {
		x.t.Fatal(err)
	}
	if guestOf(img) != x.before {
		x.t.Fatal("the guest does not read as before")
	}
	for name, want := range x.wanted() {
		if x.twice[name] {
			continue // asked for, it is an error; only the first is changed
		}
		have, err := img.LoadBitmap(name)
		if err != nil || !have.Equal(want) {
			x.t.Fatalf("bitmap %q: %v, or other bits", name, err)
		}
	}
	for name, want := range x.named {
		if _, err := img.BitmapInfo(name); want == nil && !x.twice[name] && x.bitmaps[name] != nil && err == nil {
			x.t.Fatalf("bitmap %q is still there", name)
		}
	}
	x.untouched()
}

// wanted is what must be loadable now.
func (x *edit) wanted() map[string]*bitmap.Bitmap {
	want := map[string]*bitmap.Bitmap{}
	for name, b := range x.bitmaps {
		if _, named := x.named[name]; !named && !x.all {
			want[name] = b
		}
	}
	for name, b := range x.named {
		if b != nil {
			want[name] = b
		}
	}
	return want
}

// untouched compares the bytes of all that the old file referred to, bitmaps and
// refcounts left out, and wants no refcount lower than it was and too low.
func (x *edit) untouched() {
	if x.audit == nil {
		return
	}
	now, err := build.AuditFile(x.f, x.f.Size())
	if err != nil {
		x.t.Fatal(err)
	}
	file, size := x.f.Bytes(), x.audit.ClusterSize
	for i, cl := range x.audit.Clusters {
		lo, hi := int64(i)*size, min(int64(i+1)*size, int64(len(x.file)))
		switch {
		case cl.Refs == 0, cl.Use == build.UsedByHeader, cl.Use == build.UsedByRefcountTable, cl.Use == build.UsedByRefcountBlock, cl.Use.Bitmap():
		case !bytes.Equal(x.file[lo:hi], file[lo:hi]):
			x.t.Fatalf("cluster %d (%v) is changed", i, cl.Use)
		case now.Clusters[i].Count < now.Clusters[i].Refs && now.Clusters[i].Count < cl.Count:
			x.t.Fatalf("cluster %d (%v) has %d references, its refcount went from %d to %d", i, cl.Use, now.Clusters[i].Refs, cl.Count, now.Clusters[i].Count)
		}
	}
}

// crash reads the guest in some of the states that a crash can leave.
func (x *edit) crash() {
	x.f.States(&crash.Options{Max: 6, Random: -1}, func(s *crash.State) bool {
		img, err := qcow2.Open(s, s.Size(), nil)
		if err != nil {
			x.t.Fatalf("%v: %v", s, err)
		}
		if guestOf(img) != x.before {
			x.t.Fatalf("%v: the guest does not read as before", s)
		}
		return true
	})
}

// loadAll loads the bitmaps that can be trusted.
func loadAll(img *qcow2.Image) map[string]*bitmap.Bitmap {
	m := map[string]*bitmap.Bitmap{}
	list, _ := img.Bitmaps()
	for _, info := range list[:min(len(list), 64)] {
		if b, err := img.LoadBitmap(info.Name); err == nil {
			m[info.Name] = b
		}
	}
	return m
}

// guestOf is a hash of what the guest and each snapshot read, errors included.
func guestOf(img *qcow2.Image) uint64 {
	h := fnv.New64a()
	hash := func(d qcow2.Disk) {
		p := make([]byte, 8<<10)
		left, count := 1<<20, 0
		for e, err := range d.Extents(0, min(d.Size(), maxEditDisk)) {
			if count++; err != nil || count > maxExtents {
				fmt.Fprint(h, "ends at extent ", count)
				return
			}
			fmt.Fprint(h, e.Off, e.Len, e.Kind, e.Host)
			for off := e.Off; off < e.End() && left > 0 && e.Kind != qcow2.Absent && e.Kind != qcow2.Zero; off += int64(len(p)) {
				n, err := d.ReadAt(p[:min(int64(len(p)), e.End()-off)], off)
				_, _ = h.Write(p[:n])
				fmt.Fprint(h, n, err != nil)
				left -= len(p)
			}
		}
	}
	hash(img)
	list, err := img.Snapshots()
	fmt.Fprint(h, len(list), err != nil)
	for _, s := range list[:min(len(list), maxListed)] {
		if d, err := img.SnapshotDisk(s.ID); err == nil {
			hash(d)
		}
	}
	return h.Sum64()
}
