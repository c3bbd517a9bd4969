package main

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qbitkit/qbit/testimages/build"
)

// writeLUKS writes an image with an encryption header that qemu-img made.
func writeLUKS(t *testing.T, path, header string) {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	b, err := os.ReadFile(filepath.Join(filepath.Dir(here), "testdata", header+".header"))
	if err != nil {
		t.Fatal(err)
	}
	img := build.Must(build.Spec{Size: 1 << 20, ClusterBits: 16, CryptMethod: 2})
	copy(img.Bytes[img.At("luks").Off:], b)
	writeFile(t, path, img.Bytes)
}

func TestLUKS(t *testing.T) {
	slots := []map[string]any{{"active": true, "iters": int64(44281), "stripes": int64(4000), "key-offset": int64(4096)}}
	for i := range int64(7) {
		slots = append(slots, map[string]any{"active": false, "key-offset": 262144 + i*258048})
	}
	want := map[string]any{"format": "luks", "cipher-alg": "aes-256", "cipher-mode": "xts", "ivgen-alg": "plain64", "hash-alg": "sha256",
		"payload-offset": int64(2068480), "master-key-iters": int64(10948), "uuid": "f7650d3d-36f9-434e-9139-6e5ffff26e47", "slots": slots}
	path := t.TempDir() + "/image"
	writeLUKS(t, path, "luks-xts")
	l, err := openOverlay(t, refPolicy{}, path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, encryptInfo(l)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	essiv := make(map[string]any)
	header, err := os.ReadFile("testdata/luks-essiv.header")
	if err != nil {
		t.Fatal(err)
	}
	if err := addLuks(essiv, header); err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{"cipher-alg": "aes-128", "cipher-mode": "cbc", "ivgen-alg": "essiv", "ivgen-hash-alg": "sha256"} {
		if essiv[key] != value {
			t.Errorf("%s is %v, want %s", key, essiv[key], value)
		}
	}
}

// An encryption header of junk is reported, and keeps nothing else from it.
func TestBrokenLUKS(t *testing.T) {
	path := t.TempDir() + "/image"
	writeImage(t, path, build.Spec{CryptMethod: 2, ClusterBits: 12, Clusters: map[uint64]build.Cluster{}})
	l, err := openOverlay(t, refPolicy{}, path)
	if err != nil {
		t.Fatal(err)
	}
	if info := encryptInfo(l); info["problem"] == nil || info["format"] != "luks" {
		t.Errorf("got %v", info)
	}
}
