package manifest

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// lineChunks is how many chunks a line of the document has at most.
const lineChunks = 512

// Encode validates a manifest and writes it as a document that Decode reads: the
// same document for the same manifest. The writer may have got a part of it when
// there is an error.
func (m *Manifest) Encode(out io.Writer) error {
	if err := m.Validate(nil); err != nil {
		return err
	}
	w := &writer{w: bufio.NewWriterSize(out, 64<<10)}
	w.printf("{\n  \"qbit-manifest\": %d,\n  \"chunk-size\": %d,\n  \"disks\": [", Version, ChunkSize)
	for i, d := range m.Disks {
		w.next(i, 4)
		w.disk(d)
	}
	w.printf("%s]\n}\n", w.close(len(m.Disks), 2))
	if err := w.w.Flush(); w.err == nil {
		w.err = err
	}
	if w.err != nil {
		return fmt.Errorf("writing a manifest: %w", w.err)
	}
	return nil
}

// A writer writes the document and keeps the first error.
type writer struct {
	w   *bufio.Writer
	err error
}

func (w *writer) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(w.w, format, args...); err != nil && w.err == nil {
		w.err = err
	}
}

// next begins the line of an element of a list.
func (w *writer) next(i, indent int) {
	if i > 0 {
		w.printf(",")
	}
	w.printf("\n%*s", indent, "")
}

// close is what stands before the bracket that ends a list of n elements.
func (w *writer) close(n, indent int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("\n%*s", indent, "")
}

// quote is a JSON string; the text is valid UTF-8.
func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string cannot be refused
	}
	return string(b)
}

func (w *writer) disk(d *Disk) {
	w.printf("{")
	if d.Domain != "" {
		w.printf("\"domain\": %s, ", quote(d.Domain))
	}
	w.printf("\"name\": %s, \"points\": [", quote(d.Name))
	for i, p := range d.Points {
		w.next(i, 6)
		w.point(p)
	}
	w.printf("%s]}", w.close(len(d.Points), 4))
}

func (w *writer) point(p *Point) {
	w.printf("{\"id\": %s, \"name\": %s, \"kind\": %s, \"size\": %d,", quote(p.ID), quote(p.Name), quote(p.Kind), p.Size)
	if p.Parent != nil {
		w.printf("\n       \"parent\": {\"id\": %s, \"root\": \"%s\"},", quote(p.Parent.ID), p.Parent.Root)
	}
	if p.Assumed {
		w.printf("\n       \"assumed\": true,")
	}
	w.printf("\n       \"root\": \"%s\",", p.Root)
	if p.SHA256 != "" {
		w.printf("\n       \"sha256\": \"%s\",", p.SHA256)
	}
	w.printf("\n       \"files\": [")
	for i, f := range p.Files {
		w.next(i, 8)
		w.file(f)
	}
	w.printf("%s],\n       \"chunks\": [", w.close(len(p.Files), 7))
	lines := 0
	for _, r := range p.Runs {
		lines = w.run(r, lines)
	}
	w.printf("%s]}", w.close(lines, 7))
}

func (w *writer) file(f File) {
	w.printf("{\"path\": %s, ", quote(f.Path))
	if f.Member != "" {
		w.printf("\"member\": %s, ", quote(f.Member))
	}
	w.printf("\"size\": %d, \"xxh64-4m\": \"%s\"", f.Size, f.Sum)
	if f.SHA256 != "" {
		w.printf(", \"sha256\": \"%s\"", f.SHA256)
	}
	w.printf("}")
}

// run writes a run in lines, of which there were some before, and returns how many
// there are now.
func (w *writer) run(r Run, lines int) int {
	if r.Sums == nil {
		w.next(lines, 8)
		w.printf("{\"first\": %d, \"zeros\": %d}", r.First, r.Count)
		return lines + 1
	}
	first := r.First
	for part := range slices.Chunk(r.Sums, 8*lineChunks) {
		w.next(lines, 8)
		w.printf("{\"first\": %d, \"sums\": \"%s\"}", first, hex.EncodeToString(part))
		first += int64(len(part)) / 8
		lines++
	}
	return lines
}
