package fuzz

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/qbitkit/qbit/reconstruct"
)

// resumeSeeds are journals: a whole one, an empty one, a torn one.
func resumeSeeds(f *testing.F) [][]byte {
	j := &reconstruct.ResumeJournal{
		Header: reconstruct.ResumeHeader{Size: 20 << 20, Mode: 0o644, Nonce: 9, Job: []reconstruct.ResumeFact{{What: "file 1", Is: `"full.qcow2" of 5 bytes`}}},
		Sums:   []reconstruct.ResumeSum{{Chunk: 0, Sum: 7}, {Chunk: 4, Sum: 8}}, Whole: true,
	}
	whole, err := j.Append(nil)
	if err != nil {
		f.Fatal(err)
	}
	empty, err := new(reconstruct.ResumeJournal).Append(nil)
	if err != nil {
		f.Fatal(err)
	}
	return [][]byte{whole, empty, whole[:len(whole)-7], append(bytes.Clone(whole), whole[len(whole)-24:]...), whole[:40], nil}
}

// FuzzResumeJournal reads a journal that a crash, or anybody, may have made.
// Property: what is accepted has ascending chunks within the disk, no more than the
// file has room for; written and read again it is the same; and with its end torn
// off it has no chunk that it did not have.
func FuzzResumeJournal(f *testing.F) {
	for _, s := range resumeSeeds(f) {
		f.Add(s, uint16(5))
	}
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		j := readResume(b)
		if j == nil {
			return
		}
		checkResume(t, j, len(b))
		again, err := j.Append(nil)
		if err != nil {
			t.Fatalf("accepted, and not written: %v", err)
		}
		if got := readResume(again); got == nil || !sameResume(got, j) {
			t.Fatalf("written and read again it is %+v, and was %+v", got, j)
		}
		torn := readResume(b[:len(b)-min(int(cut), len(b))])
		if torn == nil {
			return
		}
		had := map[int64]bool{}
		for _, s := range j.Sums {
			had[s.Chunk] = true
		}
		for _, s := range torn.Sums {
			if !had[s.Chunk] {
				t.Fatalf("torn it has chunk %d", s.Chunk)
			}
		}
	})
}

// readResume is nil where the journal is refused.
func readResume(b []byte) *reconstruct.ResumeJournal {
	j, err := reconstruct.ReadResumeJournal(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil
	}
	return j
}

func checkResume(t *testing.T, j *reconstruct.ResumeJournal, size int) {
	t.Helper()
	if len(j.Sums) > size/24 {
		t.Fatalf("%d chunks in %d bytes", len(j.Sums), size)
	}
	before := int64(-1)
	for _, s := range j.Sums {
		if s.Chunk <= before || s.Chunk > (j.Header.Size-1)/reconstruct.ChunkSize {
			t.Fatalf("chunk %d after %d, of a disk of %d bytes", s.Chunk, before, j.Header.Size)
		}
		before = s.Chunk
	}
}

func sameResume(a, b *reconstruct.ResumeJournal) bool {
	return a.Whole == b.Whole && a.Header.Size == b.Header.Size && a.Header.Mode == b.Header.Mode && a.Header.Nonce == b.Header.Nonce &&
		len(a.Header.Job) == len(b.Header.Job) && (len(a.Header.Job) == 0 || reflect.DeepEqual(a.Header.Job, b.Header.Job)) &&
		len(a.Sums) == len(b.Sums) && (len(a.Sums) == 0 || reflect.DeepEqual(a.Sums, b.Sums))
}
