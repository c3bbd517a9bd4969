package fuzz

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"testing"

	"github.com/qbitkit/qbit/qcow2/inflate"
)

// FuzzInflate decodes any bytes as deflate, beside the standard library. Properties: the
// same bytes come out, whether the output gets full or not, and of the second time too;
// what the standard library takes is taken and what it finds corrupt is found so; nothing
// is written outside of the output.
//
// The standard library does not decode the last symbols of a stream that is cut off, where
// fewer bits are left than the end of a block has. What comes out beyond it then must be
// what it gives whatever bits follow.
func FuzzInflate(f *testing.F) {
	addInflate(f)
	f.Fuzz(func(t *testing.T, stream []byte, size uint16) {
		stream = stream[:len(stream):len(stream)]
		want, wantErr := stdInflate(stream, int(size))
		var d inflate.Decoder
		for range 2 {
			got, err := inflateBetween(t, &d, stream, int(size))
			checkInflate(t, stream, int(size), got, err, want, wantErr)
		}
	})
}

func addInflate(f *testing.F) {
	content := append(patterned(3000), bytes.Repeat([]byte("a word, "), 500)...)
	for _, level := range []int{flate.HuffmanOnly, flate.NoCompression, 1, 6, 9} {
		for _, n := range []int{1, 20, 600, len(content)} {
			var out bytes.Buffer
			w, err := flate.NewWriter(&out, level)
			if err != nil {
				f.Fatal(err)
			}
			for _, part := range [][]byte{content[:n/3], content[n/3 : n]} { // in two blocks
				if _, err = w.Write(part); err == nil {
					err = w.Flush()
				}
				if err != nil {
					f.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				f.Fatal(err)
			}
			f.Add(out.Bytes(), uint16(n))
			f.Add(out.Bytes(), uint16(n+1))
			f.Add(out.Bytes()[:out.Len()*2/3], uint16(n))
		}
	}
}

// inflateBetween decodes into the middle of a buffer.
func inflateBetween(t *testing.T, d *inflate.Decoder, stream []byte, size int) ([]byte, error) {
	const room = 300
	p := bytes.Repeat([]byte{0xaa}, room+size+room)
	n, err := d.Decode(p[room:][:size], stream)
	if !all(p[:room], 0xaa) || !all(p[room+size:], 0xaa) {
		t.Fatal("bytes outside of the output were written")
	}
	if (err == nil) != (n == size) {
		t.Fatalf("%d of %d bytes, with error %v", n, size, err)
	}
	return p[room:][:n], err
}

// stdInflate returns up to size bytes and the error behind them, io.EOF at the end of a
// stream that gives fewer.
func stdInflate(stream []byte, size int) ([]byte, error) {
	p := make([]byte, size)
	r := flate.NewReader(bytes.NewReader(stream))
	for n := 0; n < size; {
		m, err := r.Read(p[n:])
		if n += m; err != nil && n < size {
			return p[:n], err
		}
	}
	return p, nil
}

func checkInflate(t *testing.T, stream []byte, size int, got []byte, err error, want []byte, wantErr error) {
	t.Helper()
	if wantErr == io.ErrUnexpectedEOF {
		checkCut(t, stream, size, got, err, want)
		return
	}
	if !bytes.Equal(got, want) || !sameFailure(err, wantErr) {
		t.Fatalf("%d bytes and %v, the standard library gives %d bytes and %v; the same bytes: %v",
			len(got), err, len(want), wantErr, bytes.Equal(got, want))
	}
}

func sameFailure(err, wantErr error) bool {
	var ours *inflate.CorruptError
	var theirs flate.CorruptInputError
	switch {
	case wantErr == nil:
		return err == nil
	case wantErr == io.EOF:
		return err == inflate.ErrEnd
	}
	return errors.As(err, &ours) && errors.As(wantErr, &theirs)
}

// checkCut checks what was decoded of a stream of which the standard library wants more.
func checkCut(t *testing.T, stream []byte, size int, got []byte, err error, want []byte) {
	t.Helper()
	if !bytes.HasPrefix(got, want) || err == inflate.ErrEnd {
		t.Fatalf("%d bytes of a stream that is cut off and %v; the standard library gives %d others", len(got), err, len(want))
	}
	for _, more := range []byte{0, 0xff} {
		padded, _ := stdInflate(append(stream[:len(stream):len(stream)], bytes.Repeat([]byte{more}, 8)...), size)
		if !bytes.HasPrefix(padded, got) {
			t.Fatalf("%d bytes of a stream that is cut off depend on what follows it", len(got))
		}
	}
}
