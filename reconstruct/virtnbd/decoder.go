package virtnbd

import (
	"fmt"
	"io"
)

// decodeAhead is how much of a payload is read at a time.
const decodeAhead = 128 << 10

// A buffer is what a decoder reads into.
type buffer struct{ b []byte }

func newBuffer() any { return &buffer{make([]byte, decodeAhead)} }

// equip gives the decoder a buffer, which it needs to work.
func (d *decoder) equip(b *buffer) { d.t.buf, d.t.have = b.b, 0 }

// strip takes it away. It may have grown.
func (d *decoder) strip(b *buffer) { b.b, d.t.buf, d.t.have = d.t.buf, nil, 0 }

// A decoder decodes the LZ4 frames of one entry of the index, block by block: one
// frame where that says how much it holds, or else all up to the end of a payload.
type decoder struct {
	t      tape
	f      lz4Reader
	left   int64 // bytes of the entry
	frames int   // begun so far
	inside bool  // a frame
	single bool  // the entry is one frame
}

func (d *decoder) begin(s *Stream, e entry) {
	*d = decoder{t: tape{r: s.r, size: s.size, pos: e.host, buf: d.t.buf}, left: e.len}
	d.f.t = &d.t
}

// next decodes a block into dst; see lz4Reader.next. At the end of the entry,
// which has been checked then, it returns io.EOF.
func (d *decoder) next(dst, before []byte) (int, error) {
	for {
		if !d.inside {
			if err := d.enter(); err != nil {
				return 0, err
			}
		}
		n, err := d.f.next(dst[:min(int64(len(dst)), d.left)], before)
		if err == io.EOF {
			d.inside = false
			continue
		}
		if n > 0 || err != nil {
			d.left -= int64(n)
			return n, err
		}
	}
}

// enter goes on to the next frame of the entry.
func (d *decoder) enter() error {
	if d.frames == 0 || !d.single {
		found, err := d.f.open()
		if err != nil {
			return err
		}
		if found {
			d.inside, d.single = true, d.frames == 0 && d.f.sized
			d.frames++
			return nil
		}
	}
	if d.left > 0 {
		return formatError("data frame", "payload", d.t.pos, "",
			fmt.Sprintf("its LZ4 frames end here, %d bytes short of what the header tells of", d.left))
	}
	return io.EOF
}

// whole decodes an entry of the length of p, from its beginning.
func (d *decoder) whole(p []byte) error {
	for pos := 0; ; {
		n, err := d.next(p[pos:], p[max(0, pos-windowSize):pos])
		pos += n
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
