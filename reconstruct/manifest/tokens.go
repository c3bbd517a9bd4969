package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A reader reads JSON token by token, so that no more of a document is held than
// what it means.
type reader struct {
	*json.Decoder
	in   *boundedReader
	left Limits // what may still come
}

func newReader(r io.Reader, limits Limits) *reader {
	in := &boundedReader{r: r, left: limits.Bytes}
	d := json.NewDecoder(in)
	d.UseNumber()
	return &reader{Decoder: d, in: in, left: limits}
}

// A boundedReader refuses a document that is too long, and does not just end.
type boundedReader struct {
	r    io.Reader
	left int64
}

var errTooLong = errors.New("the document is longer than the limits allow")

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func (r *reader) errorf(format string, args ...any) error {
	return &Error{Msg: fmt.Sprintf("byte %d: ", r.InputOffset()) + fmt.Sprintf(format, args...)}
}

// token reads a token. The document may not end there.
func (r *reader) token() (json.Token, error) {
	t, err := r.Token()
	switch {
	case err == nil:
		return t, nil
	case errors.Is(err, errTooLong):
		return nil, &Error{Msg: errTooLong.Error()}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, r.errorf("the document is cut off")
	}
	if syntax := new(json.SyntaxError); errors.As(err, &syntax) {
		return nil, r.errorf("%v", err)
	}
	return nil, fmt.Errorf("reading a manifest: %w", err)
}

func (r *reader) delim(want json.Delim) error {
	t, err := r.token()
	if err == nil && t != want {
		err = r.errorf("%q is due, and %v is there", want.String(), brief(t))
	}
	return err
}

// brief is a token for a message.
func brief(t json.Token) string {
	s := fmt.Sprintf("%v", t)
	return strconv.Quote(s[:min(len(s), 40)])
}

// object calls field for each key of an object, which reads the value. A key that
// stands there twice is an error.
func (r *reader) object(field func(key string) error) error {
	if err := r.delim('{'); err != nil {
		return err
	}
	var seen []string
	for r.More() {
		t, err := r.token()
		if err != nil {
			return err
		}
		key, _ := t.(string)
		for _, old := range seen {
			if old == key {
				return r.errorf("the key %s stands there twice", brief(key))
			}
		}
		if err := field(key); err != nil {
			return err
		}
		seen = append(seen, key)
	}
	return r.delim('}')
}

// array calls element for each element of an array, which reads it.
func (r *reader) array(element func() error) error {
	if err := r.delim('['); err != nil {
		return err
	}
	for r.More() {
		if err := element(); err != nil {
			return err
		}
	}
	return r.delim(']')
}

func (r *reader) unknown(key string) error {
	return r.errorf("the key %s is not one of version %d here", brief(key), Version)
}

func (r *reader) text(p *string) error {
	t, err := r.token()
	if err != nil {
		return err
	}
	s, ok := t.(string)
	if !ok {
		return r.errorf("a string is due, and %s is there", brief(t))
	}
	*p = strings.Clone(s)
	return nil
}

func (r *reader) number(p *int64) error {
	t, err := r.token()
	if err != nil {
		return err
	}
	n, ok := t.(json.Number)
	if ok {
		*p, err = strconv.ParseInt(n.String(), 10, 64)
	}
	if !ok || err != nil || *p < 0 {
		return r.errorf("a whole number from 0 up is due, and %s is there", brief(t))
	}
	return nil
}

func (r *reader) truth(p *bool) error {
	t, err := r.token()
	if err != nil {
		return err
	}
	var ok bool
	if *p, ok = t.(bool); !ok {
		return r.errorf("true or false is due, and %s is there", brief(t))
	}
	return nil
}

// sum reads a checksum: 16 hex digits.
func (r *reader) sum(p *Sum) error {
	var s string
	if err := r.text(&s); err != nil {
		return err
	}
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil || !goodHex(s, 8) {
		return r.errorf("16 hex digits are due, and %s is there", brief(s))
	}
	*p = Sum(n)
	return nil
}
