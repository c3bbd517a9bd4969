package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/qbitkit/qbit/reconstruct/plan"
	"github.com/qbitkit/qbit/reconstruct/virtnbd"
)

// A sumCheck compares the streams of a chain with the .chksum files beside them: of a
// stream that is not compressed nothing else shows rot. What a manifest speaks of needs
// none, for then each chunk is compared. The zero value checks nothing.
type sumCheck struct {
	set   *set
	route []*plan.Backup
}

func newSumCheck(s *set, d diskRoute) sumCheck {
	if d.seal != nil {
		return sumCheck{}
	}
	return sumCheck{s, d.links()}
}

// start compares in a goroutine of its own, which ends with ctx or before. The result
// waits for it.
func (k sumCheck) start(ctx context.Context, ch *chain) (wait func() error) {
	if k.set == nil {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() { done <- compareSums(ctx, k.set, k.route, ch) }()
	return sync.OnceValue(func() error { return <-done })
}

func compareSums(ctx context.Context, s *set, route []*plan.Backup, ch *chain) error {
	for i, b := range route {
		stream, ok := ch.links[i].Disk.(namedDisk).Disk.(*virtnbd.Stream)
		if !ok || b.Source.Checksum == "" || stream.Meta().Compressed {
			continue
		}
		want, src, err := s.checksum(b)
		if errors.Is(err, virtnbd.ErrNoChecksum) {
			continue
		}
		if err != nil {
			return badData{fmt.Errorf("%s: %w", escapeName(src.String()), err)}
		}
		l := ch.layers[i]
		got, err := virtnbd.Sum(ctx, l.file, l.file.size, nil)
		if err != nil {
			return plainError(l.path, err)
		}
		if got != want {
			return badData{fmt.Errorf("%s: its adler32 is %d, and %s says %d: something in it is damaged, and nothing tells what; "+
				"to get the disk all the same, move that file away", escapeName(l.path), got, escapeName(src.String()), want)}
		}
	}
	return nil
}

// checksum is the adler32 that stands beside a backup, and where it stands. The error
// wraps virtnbd.ErrNoChecksum where the file holds none.
func (s *set) checksum(b *plan.Backup) (uint32, plan.Source, error) {
	src := plan.Source{Path: b.Source.Checksum}
	if b.Source.Member != "" {
		src = plan.Source{Path: b.Source.Path, Member: b.Source.Checksum}
	}
	file, err := s.open(src)
	if err != nil {
		return 0, src, err
	}
	defer file.Close()
	sum, err := virtnbd.ReadChecksum(io.NewSectionReader(file, 0, file.size))
	return sum, src, err
}
