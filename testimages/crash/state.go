package crash

import "fmt"

// A State is what a crash could have left of a File. It may be kept, and read by
// several goroutines.
type State struct {
	Ops   int    // how many writes, truncates and syncs the program had done
	Marks int    // how many marks it had passed
	What  string // which of the writes that were not synced are there
	image *image
}

func (s *State) String() string {
	return fmt.Sprintf("crash after operation %d (%d marks), %s", s.Ops, s.Marks, s.What)
}

// ReadAt implements io.ReaderAt.
func (s *State) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading at a negative offset (%d)", off)
	}
	return s.image.readAt(p, off)
}

// Size is the file's length in bytes.
func (s *State) Size() int64 { return s.image.size }

// Bytes is a copy of the contents.
func (s *State) Bytes() []byte { return s.image.bytes() }

// File makes a File that starts from the state: what a program finds after the
// crash, to mend it, and to crash again. It must not be called by two goroutines
// at once.
func (s *State) File() *File { return newFile(s.image.clone()) }
