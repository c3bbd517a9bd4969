package qcow2_test

import (
	"math/rand/v2"
	"testing"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/crash"
)

// What qemu-img measure 7.2 says of empty disks.
func TestMeasureFigures(t *testing.T) {
	const k, m, g, tera = 1 << 10, 1 << 20, 1 << 30, 1 << 40
	for _, test := range []struct {
		layout         qcow2.Layout
		required, full int64
	}{
		{qcow2.Layout{}, 196608, 196608},
		{qcow2.Layout{Size: 1}, 327680, 393216},
		{qcow2.Layout{Size: 64*k + 1}, 327680, 458752},
		{qcow2.Layout{Size: g}, 393216, 1074135040},
		{qcow2.Layout{Size: tera}, 168034304, 1099679662080},
		{qcow2.Layout{Size: 10 * tera}, 1678114816, 10996794392576},
		{qcow2.Layout{Size: g, ClusterSize: 512}, 21385216, 1095127040},
		{qcow2.Layout{Size: 64 * g, ClusterSize: 512}, 1368579584, 70088056320},
		{qcow2.Layout{Size: g, ClusterSize: 4 * k}, 2637824, 1076379648},
		{qcow2.Layout{Size: 64 * g, ClusterSize: 2 * m}, 10485760, 68729962496},
		{qcow2.Layout{Size: g, ExtendedL2: true}, 524288, 1074266112},
		{qcow2.Layout{Size: g, ExtendedL2: true, ClusterSize: 16 * k}, 1245184, 1074987008},
		{qcow2.Layout{Size: tera, RefcountBits: 1}, 136577024, 1099648204800},
		{qcow2.Layout{Size: tera, RefcountBits: 64}, 268697600, 1099780325376},
		{qcow2.Layout{Size: g, RefcountBits: 1, ClusterSize: 512}, 17311232, 1091053056},
		{qcow2.Layout{Size: g, Version: 2}, 393216, 1074135040},
		{qcow2.Layout{Size: g, Preallocation: qcow2.PreallocationMetadata}, 393216, 1074135040},
		{qcow2.Layout{Size: g, Preallocation: qcow2.PreallocationFalloc}, 1074135040, 1074135040},
		{qcow2.Layout{Size: g, Preallocation: qcow2.PreallocationFull}, 1074135040, 1074135040},
	} {
		got, err := test.layout.Measure(0)
		if err != nil || got.Required != test.required || got.Full != test.full {
			t.Errorf("%+v: %+v, %v; want %d and %d", test.layout, got, err, test.required, test.full)
		}
		if all, err := test.layout.Measure((test.layout.Size + 511) / 512); err != nil || all.Required != test.full {
			t.Errorf("%+v, all of it used: %+v, %v", test.layout, all, err)
		}
	}
}

func TestMeasureRefuses(t *testing.T) {
	for _, l := range []qcow2.Layout{{Size: -1}, {Size: 1 << 62, ClusterSize: 512}, {Size: 1, ClusterSize: 1000}, {Size: 1, RefcountBits: 3}} {
		if got, err := l.Measure(0); err == nil {
			t.Errorf("%+v is %+v", l, got)
		}
	}
}

// What qemu-img measure 7.2 says of two bitmaps of a disk of 10 MiB.
func TestMeasureBitmaps(t *testing.T) {
	two := []qcow2.BitmapInfo{{Name: "rec", Granularity: 64 << 10}, {Name: "dis", Granularity: 32 << 10}}
	for cluster, want := range map[int64]int64{64 << 10: 327680, 512: 2560, 2 << 20: 10485760} {
		if got := qcow2.MeasureBitmaps(two, 10<<20, cluster); got != want {
			t.Errorf("clusters of %d: %d bytes, want %d", cluster, got, want)
		}
	}
	if got := qcow2.MeasureBitmaps(nil, 10<<20, 64<<10); got != 0 {
		t.Errorf("no bitmaps: %d bytes", got)
	}
}

// No image becomes larger than what was measured.
func TestMeasureIsEnough(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 50))
		cluster := int64(512) << r.IntN(8)
		l := qcow2.Layout{Size: r.Int64N(400 * cluster), ClusterSize: cluster, RefcountBits: 1 << r.IntN(7), ExtendedL2: cluster >= 16<<10 && r.IntN(2) == 0}
		f := crash.New(nil)
		w, err := qcow2.Create(f, l)
		if err != nil {
			t.Fatal(err)
		}
		used, chance := int64(0), r.IntN(4)
		for off := int64(0); off < l.Size; off += cluster {
			if r.IntN(3) >= chance {
				continue
			}
			if _, err := w.WriteAt(make([]byte, min(cluster, l.Size-off)), off); err != nil {
				t.Fatal(err)
			}
			used++
		}
		infos := measuredBitmaps(t, r, w, l.Size)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		m, err := l.Measure(used)
		if err != nil {
			t.Fatal(err)
		}
		size, most := int64(len(f.Bytes())), m.Required+qcow2.MeasureBitmaps(infos, l.Size, cluster)
		if size > most || m.Required > m.Full {
			t.Errorf("seed %d, %+v with %d clusters and %d bitmaps: %d bytes, measured %+v", seed, l, used, len(infos), size, m)
		}
		if used == (l.Size+cluster-1)/cluster && len(infos) == 0 && size != m.Full {
			t.Errorf("seed %d, %+v: all of it are %d bytes, measured %d", seed, l, size, m.Full)
		}
	}
}

// measuredBitmaps adds up to two bitmaps.
func measuredBitmaps(t *testing.T, r *rand.Rand, w *qcow2.Writer, size int64) []qcow2.BitmapInfo {
	t.Helper()
	var infos []qcow2.BitmapInfo
	for _, name := range []string{"a", "another"}[:r.IntN(3)] {
		b, err := bitmap.New(size, 512<<r.IntN(4))
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			b.Set(r.Int64N(size+1), 1)
		}
		if err := w.AddBitmap(name, b, false); err != nil {
			t.Fatal(err)
		}
		infos = append(infos, qcow2.BitmapInfo{Name: name, Granularity: b.Granularity()})
	}
	return infos
}
