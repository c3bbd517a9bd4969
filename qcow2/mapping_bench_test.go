package qcow2

import "testing"

// BenchmarkL2Entry decodes the entries of a table of 64 KiB: what each is said to be
// and, of a compressed one, where its bytes are.
func BenchmarkL2Entry(b *testing.B) {
	g := Geometry{Version: 3, ClusterBits: 16}
	for name, flags := range map[string]uint64{"data": entryCopied, "zero": entryZero, "compressed": entryCompressed} {
		var table [8192]uint64
		for i := range table {
			table[i] = flags | uint64(i+1)<<g.ClusterBits
		}
		b.Run(name, func(b *testing.B) {
			sum := uint64(0)
			for b.Loop() {
				for _, w := range table {
					sum += uint64(decodeOne(b, l2Entry(w), g))
				}
			}
			if sum == 0 {
				b.Fatal("no entry has a place")
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(table)), "ns/entry")
		})
	}
}

func decodeOne(b *testing.B, e l2Entry, g Geometry) HostOffset {
	if e.compressed() {
		host, _ := e.compressedRange(g)
		return host
	}
	if rule := checkStandard(e, g, false); rule != "" {
		b.Fatal(rule)
	}
	return e.meaning(false).host
}
