package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"reflect"
	"strings"
)

// A jsonList is a list that is made while it is written, so that a list as long as
// an image claims needs no memory. As a field it is left out where it is nil, or
// empty.
type jsonList iter.Seq[any]

// A streamed value is a struct with a jsonList somewhere in it. Its fields are
// looked at in their order, each only when those before it are written: a list can
// fill in a field behind it.
type streamed interface{ streamed() }

// A jsonStream writes JSON as writeJSON does.
type jsonStream struct {
	w   *bufio.Writer
	buf bytes.Buffer
	enc *json.Encoder // into buf
	err error         // the first, of encoding or of writing
}

func newJSONStream(w io.Writer) *jsonStream {
	s := &jsonStream{w: bufio.NewWriterSize(w, 64<<10)}
	s.enc = json.NewEncoder(&s.buf)
	s.enc.SetEscapeHTML(false)
	return s
}

// end ends the line and writes what is still in the buffer.
func (s *jsonStream) end() error {
	s.write("\n")
	if err := s.w.Flush(); s.err == nil {
		s.err = err
	}
	if s.err != nil {
		return fmt.Errorf("writing the result: %w", s.err)
	}
	return nil
}

const jsonIndent = "    "

// value writes v where the lines are indented by indent.
func (s *jsonStream) value(v any, indent string) {
	switch v := v.(type) {
	case streamed:
		s.object(reflect.Indirect(reflect.ValueOf(v)), indent)
	case jsonList:
		l := s.lines("[", "]", indent)
		s.elements(v, l, l.next)
		l.end()
	default:
		s.plain(v, indent)
	}
}

// plain writes a value that is small enough to be made as a whole.
func (s *jsonStream) plain(v any, indent string) {
	s.buf.Reset()
	s.enc.SetIndent(indent, jsonIndent)
	if err := s.enc.Encode(v); err != nil {
		s.err = err
		return
	}
	if _, err := s.w.Write(bytes.TrimSuffix(s.buf.Bytes(), []byte("\n"))); err != nil && s.err == nil {
		s.err = err
	}
}

func (s *jsonStream) write(text string) {
	if _, err := s.w.WriteString(text); err != nil && s.err == nil {
		s.err = err
	}
}

// elements writes the elements of a list into l, each after a call of before.
func (s *jsonStream) elements(list jsonList, l *jsonLines, before func()) {
	for element := range list {
		before()
		s.value(element, l.indent+jsonIndent)
		if s.err != nil {
			return
		}
	}
}

// object writes a struct with the tags of encoding/json: a name, and omitempty.
func (s *jsonStream) object(v reflect.Value, indent string) {
	l := s.lines("{", "}", indent)
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag.Get("json")
		if tag == "" {
			continue
		}
		name, option, _ := strings.Cut(tag, ",")
		key := func() {
			l.next()
			s.write(`"` + name + `": `)
		}
		if list, ok := v.Field(i).Interface().(jsonList); ok {
			s.listField(list, indent+jsonIndent, key)
		} else if option != "omitempty" || !isEmpty(v.Field(i)) {
			key()
			s.value(v.Field(i).Interface(), indent+jsonIndent)
		}
	}
	l.end()
}

// listField writes a list, with its key, if it has an element.
func (s *jsonStream) listField(list jsonList, indent string, key func()) {
	if list == nil {
		return
	}
	l := s.lines("[", "]", indent)
	s.elements(list, l, func() {
		if !l.begun {
			key()
		}
		l.next()
	})
	if l.begun {
		l.end()
	}
}

// isEmpty is what omitempty of encoding/json leaves out.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	}
	return v.IsZero()
}

// jsonLines are the lines of an object or of an array.
type jsonLines struct {
	s           *jsonStream
	indent      string
	open, close string
	begun       bool
}

func (s *jsonStream) lines(open, end, indent string) *jsonLines {
	return &jsonLines{s: s, indent: indent, open: open, close: end}
}

// next begins the line of the next element.
func (l *jsonLines) next() {
	if l.begun {
		l.s.write(",")
	} else {
		l.s.write(l.open)
	}
	l.begun = true
	l.s.write("\n" + l.indent + jsonIndent)
}

func (l *jsonLines) end() {
	if l.begun {
		l.s.write("\n" + l.indent + l.close)
	} else {
		l.s.write(l.open + l.close)
	}
}
