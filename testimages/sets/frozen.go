package sets

import (
	"archive/tar"
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"
)

// What package maker froze: NAME.json and NAME.tar.zst.
//
//go:embed data
var data embed.FS

// A frozenIndex is NAME.json; package maker writes it.
type frozenIndex struct {
	Name  string            `json:"name"`
	Tools map[string]string `json:"tools"`
	Zip   bool              `json:"zip"`
	Truth []struct {
		Disk, Point, Kind, Parent string
		Size                      int64
		SHA256                    string
		At                        time.Time
		File                      string
	} `json:"truth"`
}

func readFrozen(name string) (frozenIndex, error) {
	var idx frozenIndex
	b, err := data.ReadFile("data/" + name + ".json")
	if err != nil {
		return idx, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return idx, d.Decode(&idx)
}

// frozen is a set as virtnbdbackup left it.
func frozen(name string) Set {
	idx, err := readFrozen(name)
	if err != nil {
		panic(fmt.Sprintf("index of the frozen set %s: %v", name, err)) // what is embedded cannot be broken
	}
	s := Set{Name: "virtnbd-" + name, Tool: "virtnbdbackup", Evidence: Proven, Zip: idx.Zip}
	for _, r := range idx.Truth {
		s.Truth = append(s.Truth, Truth{Disk: r.Disk, Point: r.Point, Kind: r.Kind, Parent: r.Parent,
			Size: r.Size, SHA256: r.SHA256, At: r.At, Files: []string{r.File}})
	}
	s.parts = func(_ *Set, dir string) error { return thaw(name, dir) }
	return s
}

// Tools are the versions of the programs that made the frozen sets.
func Tools() map[string]string {
	idx, err := readFrozen("plain")
	if err != nil {
		panic(err)
	}
	return idx.Tools
}

// thaw writes a frozen set's files.
func thaw(name, dir string) error {
	return eachMember(name, func(member string, b []byte) error {
		to := filepath.Join(dir, filepath.FromSlash(member))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o644)
	})
}

// eachMember hands on the files of a frozen set.
func eachMember(name string, use func(member string, b []byte) error) error {
	f, err := data.Open("data/" + name + ".tar.zst")
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer z.Close()
	r := tar.NewReader(z)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := use(path.Clean(h.Name), b); err != nil {
			return err
		}
	}
}

// frozenFile is one file of a frozen set.
func frozenFile(name, member string) ([]byte, error) {
	var found []byte
	err := eachMember(name, func(m string, b []byte) error {
		if m == member {
			found = b
		}
		return nil
	})
	if err == nil && found == nil {
		err = fmt.Errorf("frozen set %s has no %s", name, member)
	}
	return found, err
}
