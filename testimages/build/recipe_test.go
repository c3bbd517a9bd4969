package build

import (
	"bytes"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func TestRecipesAreNamedAndBuilt(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Recipes() {
		if seen[r.Name] {
			t.Errorf("two recipes are named %q", r.Name)
		}
		seen[r.Name] = true
		if r.Rule == "" || r.Structure == "" || r.When == "" {
			t.Errorf("%q is not filled in: %+v", r.Name, r)
		}
	}
	t.Logf("%d recipes", len(seen))
}

// A patch that changes nothing would make a test that proves nothing.
func TestPatchesChangeTheImage(t *testing.T) {
	sound := map[string]bool{}
	for _, img := range []*Image{small(), wide(), snapshotImage(), bitmapImage()} {
		sound[string(img.Bytes)] = true
	}
	for _, r := range Recipes() {
		if sound[string(r.Image)] {
			t.Errorf("%q is a sound image", r.Name)
		}
	}
}

func TestHandMadeFrames(t *testing.T) {
	content := madeUp(1, "stream", 4096, true)
	if !decodesTo(rawFrame(content, 4096), content) {
		t.Error("rawFrame is no frame")
	}
	if !decodesTo(append(emptyFrame(), compressed(content, true)...), content) {
		t.Error("emptyFrame is no frame")
	}
}

// decodesTo reports whether a whole zstd stream gives content, in the opinion
// of a plain decoder.
func decodesTo(stream, content []byte) bool {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<24))
	if err != nil {
		return false
	}
	defer dec.Close()
	got, err := dec.DecodeAll(stream, nil)
	return err == nil && bytes.Equal(got, content)
}
