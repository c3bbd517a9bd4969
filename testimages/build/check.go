package build

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
)

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}

func orDefault(p *int, v int) {
	if *p == 0 {
		*p = v
	}
}

func (s *Spec) setDefaults() {
	orDefault(&s.Version, 3)
	orDefault(&s.ClusterBits, 9)
	orDefault(&s.RefcountBits, 16)
	switch {
	case s.Version == 2:
		orDefault(&s.HeaderLength, 72)
	case s.Zstd || len(s.HeaderTail) > 0:
		orDefault(&s.HeaderLength, 112+len(s.HeaderTail))
	default:
		orDefault(&s.HeaderLength, 104)
	}
}

// check refuses what the format has no bytes for.
func (s *Spec) check() error {
	switch {
	case s.ClusterBits < 9 || s.ClusterBits > 21:
		return fmt.Errorf("cluster bits %d", s.ClusterBits)
	case s.RefcountBits < 1 || s.RefcountBits > 64 || bits.OnesCount(uint(s.RefcountBits)) != 1:
		return fmt.Errorf("refcount bits %d", s.RefcountBits)
	case s.HeaderLength%8 != 0:
		return fmt.Errorf("header length %d", s.HeaderLength)
	case s.ExtendedL2 && s.ClusterBits < 14:
		return errors.New("extended L2 entries need clusters of 16 KiB")
	case s.DataFile != nil && len(s.Snapshots) > 0:
		return errors.New("no snapshots with an external data file")
	case s.DataFile != nil && s.DataFile.Raw && s.Backing != "":
		return errors.New("no backing file with a raw external data file")
	}
	if s.Version == 2 {
		if err := s.checkVersion2(); err != nil {
			return err
		}
	}
	return s.checkClusters()
}

func (s *Spec) checkVersion2() error {
	if s.ExtendedL2 || s.Zstd || s.DataFile != nil || len(s.Bitmaps) > 0 || s.HeaderLength != 72 ||
		s.RefcountBits != 16 || s.Incompatible|s.Compatible|s.Autoclear != 0 {
		return errors.New("version 2 has no features")
	}
	return nil
}

func (s *Spec) checkClusters() error {
	all := []map[uint64]Cluster{s.Clusters}
	for _, sn := range s.Snapshots {
		all = append(all, sn.Clusters)
	}
	for _, clusters := range all {
		for k, c := range clusters {
			if err := s.checkCluster(c); err != nil {
				return fmt.Errorf("cluster %d: %w", k, err)
			}
		}
	}
	return nil
}

func (s *Spec) checkCluster(c Cluster) error {
	zero := c.Form == ZeroPlain || c.Form == ZeroPrealloc
	switch {
	case zero && s.Version == 2:
		return errors.New("version 2 has no zero clusters")
	case c.Form == Sub && !s.ExtendedL2:
		return errors.New("subclusters need extended L2 entries")
	case c.Form == Sub && c.Alloc&c.Zero != 0:
		return errors.New("a subcluster is both allocated and zero")
	case c.Form == Packed && s.DataFile != nil:
		return errors.New("no compressed clusters with an external data file")
	case c.Content != nil && len(c.Content) != 1<<s.ClusterBits:
		return fmt.Errorf("content of %d bytes", len(c.Content))
	}
	return nil
}
