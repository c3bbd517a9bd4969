package build

import (
	"encoding/binary"
	"fmt"
)

// snapshotEntry is one entry of the snapshot table with its padding.
func (b *builder) snapshotEntry(i int) []byte {
	sn, d := b.s.Snapshots[i], b.views[i+1]
	be := binary.BigEndian
	e := be.AppendUint64(nil, d.l1)
	e = be.AppendUint32(e, uint32(d.l1n))
	e = be.AppendUint16(e, uint16(len(sn.ID)))
	e = be.AppendUint16(e, uint16(len(sn.Name)))
	e = be.AppendUint32(e, sn.Seconds)
	e = be.AppendUint32(e, sn.Nanosecond)
	e = be.AppendUint64(e, sn.VMClock)
	e = be.AppendUint32(e, uint32(len(sn.VMState)))
	extra := sn.extraData(d.size)
	e = be.AppendUint32(e, uint32(len(extra)))
	e = append(e, extra...)
	e = append(e, sn.ID...)
	e = append(e, sn.Name...)
	return append(e, make([]byte, -len(e)&7)...)
}

func (sn *Snapshot) extraData(size uint64) []byte {
	if sn.Bare {
		return nil
	}
	e := binary.BigEndian.AppendUint64(nil, uint64(len(sn.VMState)))
	e = binary.BigEndian.AppendUint64(e, size)
	return append(e, sn.Extra...)
}

// placeSnapshots reserves the snapshot table.
func (b *builder) placeSnapshots() {
	if len(b.s.Snapshots) == 0 {
		return
	}
	var n uint64
	for i := range b.s.Snapshots {
		n += uint64(len(b.snapshotEntry(i)))
	}
	b.snaps = b.alloc(ceilDiv(n, b.cs))
	b.lay.note(int64(b.snaps), int64(n), "snapshots")
}

func (b *builder) writeSnapshots() {
	pos := b.snaps
	for i := range b.s.Snapshots {
		e := b.snapshotEntry(i)
		copy(b.buf[pos:], e)
		b.noteSnapshot(i, int64(pos), int64(len(e)))
		pos += uint64(len(e))
	}
}

func (b *builder) noteSnapshot(i int, pos, n int64) {
	sn := b.s.Snapshots[i]
	prefix := fmt.Sprintf("snapshot[%d]", i)
	b.lay.note(pos, n, "%s", prefix)
	f := func(off, n int64, name string) { b.lay.note(pos+off, n, "%s.%s", prefix, name) }
	f(0, 8, "l1_table_offset")
	f(8, 4, "l1_size")
	f(12, 2, "id_size")
	f(14, 2, "name_size")
	f(16, 4, "date_seconds")
	f(20, 4, "date_nanoseconds")
	f(24, 8, "vm_clock")
	f(32, 4, "vm_state_size")
	f(36, 4, "extra_data_size")
	after := int64(40)
	if !sn.Bare {
		f(40, 8, "vm_state_size_large")
		f(48, 8, "disk_size")
		after = 56 + int64(len(sn.Extra))
	}
	f(after, int64(len(sn.ID)), "id")
	f(after+int64(len(sn.ID)), int64(len(sn.Name)), "name")
}
