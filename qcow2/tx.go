package qcow2

import (
	"errors"
	"fmt"

	"github.com/qbitkit/qbit/bitmap"
)

// maxBitmapBits is the most bits of a bitmap that QEMU 7.2 accepts.
const maxBitmapBits = 0x20000000

// A Tx is a transaction of an Editor: operations on the image's bitmaps, each of
// which sees what the ones before it did. None of them writes.
type Tx struct {
	img      *Image
	old      []BitmapInfo // the directory as it stands; what could be read of it
	broken   error        // why the directory cannot be read
	stale    bool
	bitmaps  []txBitmap
	changed  bool
	dropping bool // the extension goes, whatever it holds
}

// A txBitmap is a bitmap of the directory to be.
type txBitmap struct {
	info BitmapInfo
	bits *bitmap.Bitmap // to be written; nil: what is stored stays
}

func newTx(img *Image) (*Tx, error) {
	tx := &Tx{img: img, stale: img.BitmapsStale()}
	tx.old, tx.broken = img.Bitmaps()
	if format := new(*FormatError); tx.broken != nil && !errors.As(tx.broken, format) {
		return nil, tx.broken // of the file, not of what is in it
	}
	for _, b := range tx.old {
		tx.bitmaps = append(tx.bitmaps, txBitmap{info: b})
	}
	return tx, nil
}

// usable reports what forbids all operations but DropBitmaps.
func (tx *Tx) usable() error {
	if tx.stale {
		return ErrBitmapsStale
	}
	return tx.broken
}

// Bitmaps are the bitmaps as the operations so far leave them. Errors:
// ErrBitmapsStale, *FormatError for a broken directory.
func (tx *Tx) Bitmaps() ([]BitmapInfo, error) {
	if err := tx.usable(); err != nil {
		return nil, err
	}
	list := make([]BitmapInfo, len(tx.bitmaps))
	for i := range tx.bitmaps {
		list[i] = tx.bitmaps[i].info
	}
	return list, nil
}

// find is the bitmap of that name; of several, the first.
func (tx *Tx) find(name string) (*txBitmap, error) {
	if err := tx.usable(); err != nil {
		return nil, err
	}
	missing := &NotFoundError{What: "bitmap", Name: name}
	for i := range tx.bitmaps {
		if tx.bitmaps[i].info.Name == name {
			return &tx.bitmaps[i], nil
		}
		missing.Have = append(missing.Have, tx.bitmaps[i].info.Name)
	}
	return nil, missing
}

// findSound is find, for what must have a known meaning and be consistent.
func (tx *Tx) findSound(name string) (*txBitmap, error) {
	b, err := tx.find(name)
	if err != nil {
		return nil, err
	}
	if err := b.info.readable(); err != nil {
		return nil, err
	}
	if b.info.InUse {
		return nil, fmt.Errorf("bitmap %q: %w", name, ErrBitmapInUse)
	}
	return b, nil
}

// LoadBitmap is a copy of a bitmap as the operations so far leave it. Errors are
// those of Image.LoadBitmap.
func (tx *Tx) LoadBitmap(name string) (*bitmap.Bitmap, error) {
	b, err := tx.findSound(name)
	if err != nil {
		return nil, err
	}
	if b.bits != nil {
		return b.bits.Clone(), nil
	}
	return tx.img.ReadBitmap(b.info)
}

// AddBitmap adds a bitmap; auto says that QEMU is to record into it. The bits are
// copied. Errors:
// *ExistsError, and errors for a name, size or number outside the limits.
func (tx *Tx) AddBitmap(name string, b *bitmap.Bitmap, auto bool) error {
	if err := tx.usable(); err != nil {
		return err
	}
	if err := tx.checkNew(name, b); err != nil {
		return err
	}
	info := BitmapInfo{Name: name, Granularity: b.Granularity(), Auto: auto, Type: bitmapDirtyTracking}
	for bits := b.Granularity(); bits > 1; bits >>= 1 {
		info.granularityBits++
	}
	if auto {
		info.Flags = BitmapAuto
	}
	tx.bitmaps = append(tx.bitmaps, txBitmap{info: info, bits: b.Clone()})
	tx.changed = true
	return nil
}

func (tx *Tx) checkNew(name string, b *bitmap.Bitmap) error {
	if err := tx.checkName(name); err != nil {
		return err
	}
	if len(tx.bitmaps) == maxBitmaps {
		return fmt.Errorf("adding bitmap %q: the image has %d, and more are not allowed", name, maxBitmaps)
	}
	return tx.checkBits(name, b)
}

// checkName checks a name that a bitmap is to get.
func (tx *Tx) checkName(name string) error {
	if name == "" || len(name) > maxBitmapName {
		return fmt.Errorf("the name of a bitmap must have 1 to %d bytes, %.40q has %d", maxBitmapName, name, len(name))
	}
	for i := range tx.bitmaps {
		if tx.bitmaps[i].info.Name == name {
			return &ExistsError{What: "bitmap", Name: name}
		}
	}
	return nil
}

// checkBits checks the size of a bitmap and QEMU's limits on it.
func (tx *Tx) checkBits(name string, b *bitmap.Bitmap) error {
	if b.Size() != tx.img.Size() {
		return fmt.Errorf("bitmap %q is for a disk of %d bytes, this one has %d", name, b.Size(), tx.img.Size())
	}
	if b.Size() == 0 {
		return fmt.Errorf("bitmap %q: QEMU reads no bitmap of a disk of 0 bytes", name)
	}
	if bits := (b.Size() + b.Granularity() - 1) / b.Granularity(); bits > maxBitmapBits {
		return fmt.Errorf("bitmap %q would have %d bits, QEMU reads %d at the most: choose a larger granularity than %d bytes",
			name, bits, maxBitmapBits, b.Granularity())
	}
	return nil
}

// ReplaceBitmap gives a bitmap other bits, of any granularity; its flags stay. The
// bits belong to the transaction from then on.
// Errors: *NotFoundError, ErrBitmapInUse, and errors for a size outside the limits.
func (tx *Tx) ReplaceBitmap(name string, bits *bitmap.Bitmap) error {
	b, err := tx.findSound(name)
	if err != nil {
		return err
	}
	if err := tx.checkBits(name, bits); err != nil {
		return err
	}
	b.bits = bits
	b.info.Granularity, b.info.granularityBits = bits.Granularity(), 0
	for n := bits.Granularity(); n > 1; n >>= 1 {
		b.info.granularityBits++
	}
	tx.changed = true
	return nil
}

// RemoveBitmap removes a bitmap of any kind and state. Error: *NotFoundError.
func (tx *Tx) RemoveBitmap(name string) error {
	b, err := tx.find(name)
	if err != nil {
		return err
	}
	for i := range tx.bitmaps {
		if &tx.bitmaps[i] == b {
			tx.bitmaps = append(tx.bitmaps[:i:i], tx.bitmaps[i+1:]...)
			break
		}
	}
	tx.changed = true
	return nil
}

// RenameBitmap gives a bitmap another name. Errors: *NotFoundError, *ExistsError,
// ErrBitmapInUse.
func (tx *Tx) RenameBitmap(from, to string) error {
	b, err := tx.findSound(from)
	if err != nil {
		return err
	}
	if err := tx.checkName(to); err != nil {
		return err
	}
	b.info.Name = to
	tx.changed = true
	return nil
}

// SetBitmapAuto says whether QEMU is to record into a bitmap. Errors:
// *NotFoundError, ErrBitmapInUse.
func (tx *Tx) SetBitmapAuto(name string, auto bool) error {
	b, err := tx.findSound(name)
	if err != nil {
		return err
	}
	b.info.Auto = auto
	b.info.Flags &^= BitmapAuto
	if auto {
		b.info.Flags |= BitmapAuto
	}
	tx.changed = true
	return nil
}

// DropBitmaps removes all bitmaps, also where the directory is broken or stale,
// which forbids every other operation. Bitmaps can be added afterwards.
func (tx *Tx) DropBitmaps() error {
	tx.bitmaps, tx.broken, tx.stale = nil, nil, false
	tx.dropping, tx.changed = true, true
	return nil
}
