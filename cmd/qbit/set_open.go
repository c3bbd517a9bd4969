package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/plan"
	"github.com/qbitkit/qbit/reconstruct/virtnbd"
)

// openRoute opens the links of a plan, the whole backup first. What an image names
// as its backing file stays closed: the plan knows what it stands on.
func (o *opener) openRoute(s *set, route []*plan.Backup) (*chain, error) {
	ch := &chain{}
	o.streams = max(o.streams, countStreams(route))
	for _, b := range route {
		if err := o.addBackup(s, ch, b); err != nil {
			return nil, err
		}
	}
	if len(ch.links) == 1 {
		ch.disk = ch.links[0].Disk
		return ch, nil
	}
	var err error
	ch.disk, err = reconstruct.Point(ch.links)
	return ch, err
}

// addBackup opens a backup as the next link of a chain.
func (o *opener) addBackup(s *set, ch *chain, b *plan.Backup) error {
	l, err := o.openBackup(s, b)
	if err != nil {
		return err
	}
	if b.Source.Member == "" {
		if err := ch.refuseTwice(l); err != nil {
			return err
		}
	}
	link := o.link(l, len(ch.links) > 0)
	link.Lossy = b.Lossy // the plan knows more: what a log says, for example
	ch.layers, ch.links = append(ch.layers, l), append(ch.links, link)
	return nil
}

// openBackup opens the file of one backup as a link.
func (o *opener) openBackup(s *set, b *plan.Backup) (*layer, error) {
	file, err := s.open(b.Source)
	if err != nil {
		return nil, err
	}
	l := &layer{name: b.ID, path: file.path, file: file, format: string(b.Source.Format)}
	if b.Source.Format == plan.FormatVirtnbd {
		return l, o.loadStream(l)
	}
	mode := refsLink
	if b.Source.Alone {
		mode = refsAlone
	}
	return l, o.load(l, mode)
}

// streamMemory is how much the streams of a chain together keep of what they decoded,
// in bytes.
const streamMemory = 64 << 20

// sharedMemory is the memory that all streams of a run share.
func (o *opener) sharedMemory() *virtnbd.Memory {
	if o.decoded == nil {
		o.decoded = virtnbd.NewMemory(streamMemory, max(1, o.streams))
	}
	return o.decoded
}

func countStreams(route []*plan.Backup) int {
	n := 0
	for _, b := range route {
		if b.Source.Format == plan.FormatVirtnbd {
			n++
		}
	}
	return n
}

// loadStream opens the stream of virtnbdbackup in the file of a layer.
func (o *opener) loadStream(l *layer) error {
	o.files = append(o.files, l.file.File)
	stream, err := virtnbd.Open(l.file, l.file.size, &virtnbd.Options{Shared: o.sharedMemory()})
	if err != nil {
		return badData{fmt.Errorf("%s: %w", escapeName(l.path), err)}
	}
	l.disk = namedDisk{stream, l.path}
	return nil
}

// open opens a file of the set, or a member of an archive there.
func (s *set) open(src plan.Source) (*imageFile, error) {
	shown := filepath.Join(s.path, filepath.FromSlash(src.Path))
	file, err := openWith(shown, func(flags int) (*os.File, error) {
		return s.root.OpenFile(filepath.FromSlash(src.Path), flags, 0)
	})
	if err != nil || src.Member == "" {
		return file, err
	}
	if file.member, err = plan.OpenMember(file.File, file.size, src.Member); err != nil {
		file.Close()
		return nil, badData{fmt.Errorf("%s: %w", escapeName(shown), err)}
	}
	file.path += "!" + src.Member
	file.size = file.member.Size()
	return file, nil
}

// ReadAt reads the file, or the member of it that stands for the image.
func (f *imageFile) ReadAt(p []byte, off int64) (int, error) {
	if f.member != nil {
		return f.member.ReadAt(p, off)
	}
	return f.File.ReadAt(p, off)
}
