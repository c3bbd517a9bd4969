package sets

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/qbitkit/qbit/testimages/build"
)

// content applies links in order and checks the result against the truth of
// the last.
func content(dir string, links []Truth) ([]byte, error) {
	files, err := readAll(dir, links)
	if err != nil {
		return nil, err
	}
	disk, err := applyAll(files)
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", last(links).Point, last(links).Disk, err)
	}
	return disk, isTruth(links, digest(disk))
}

func last(links []Truth) Truth { return links[len(links)-1] }

func readAll(dir string, links []Truth) (files [][]byte, err error) {
	for _, t := range links {
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(t.Files[0])))
		if err != nil {
			return nil, err
		}
		files = append(files, b)
	}
	return files, nil
}

func applyAll(files [][]byte) (disk []byte, err error) {
	for i, b := range files {
		if disk, err = apply(disk, b); err != nil {
			return nil, fmt.Errorf("link %d: %w", i, err)
		}
	}
	return disk, nil
}

func isTruth(links []Truth, sum string) error {
	if t := last(links); sum != t.SHA256 {
		return fmt.Errorf("%s of %s: content has sha256 %s, the truth %s", t.Point, t.Disk, sum, t.SHA256)
	}
	return nil
}

// known are the digests of what chains of files hold, by the digests of the files:
// the sets share most of them.
var known sync.Map

// verify is content for who only wants to know whether it is the truth.
func verify(dir string, links []Truth) error {
	files, err := readAll(dir, links)
	if err != nil {
		return err
	}
	key := ""
	for _, b := range files {
		key += fmt.Sprintf("%d:%x ", len(b), xxhash.Sum64(b))
	}
	if sum, ok := known.Load(key); ok {
		return isTruth(links, sum.(string))
	}
	disk, err := applyAll(files)
	if err != nil {
		return fmt.Errorf("%s of %s: %w", last(links).Point, last(links).Disk, err)
	}
	sum := digest(disk)
	known.Store(key, sum)
	return isTruth(links, sum)
}

// apply lays a link of either format over a disk.
func apply(disk, file []byte) ([]byte, error) {
	if bytes.HasPrefix(file, []byte("meta ")) {
		return applyStream(disk, file)
	}
	return applyQcow2(disk, file)
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// flatten writes what the links hold together as a full backup of its own.
func (s *Set) flatten(dir string, links []Truth, to Truth) error {
	disk, err := content(dir, links)
	if err != nil {
		return err
	}
	b, err := fullQcow2(disk)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, filepath.FromSlash(to.Files[0])), b, 0o644)
}

// fullQcow2 is a stand-alone image: clusters of zeroes are left out, as a full
// backup does.
func fullQcow2(disk []byte) ([]byte, error) {
	const bits = 16
	spec := build.Spec{Version: 3, ClusterBits: bits, Size: uint64(len(disk)), Clusters: map[uint64]build.Cluster{}}
	zeroes := make([]byte, 1<<bits)
	for i := 0; i<<bits < len(disk); i++ {
		c := make([]byte, 1<<bits)
		copy(c, disk[i<<bits:])
		if !bytes.Equal(c, zeroes) {
			spec.Clusters[uint64(i)] = build.Cluster{Form: build.Normal, Content: c}
		}
	}
	img, err := spec.Build()
	if err != nil {
		return nil, err
	}
	return img.Bytes, nil
}
