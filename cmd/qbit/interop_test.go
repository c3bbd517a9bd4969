package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/interop"
	"github.com/qbitkit/qbit/testimages/qemumaker"
)

// qbit runs a command line in this process.
func qbit(args ...string) (stdout, stderr string, status int) {
	var out, errOut bytes.Buffer
	c := &console{in: strings.NewReader(""), out: &out, err: &errOut, errWidth: func() int { return 0 }, now: time.Now}
	status = run(context.Background(), c, args)
	return out.String(), errOut.String(), status
}

// sameMap compares our map of a disk with qemu-img's, byte for byte.
func sameMap(t *testing.T, origin, path string, qemuArgs ...string) {
	t.Helper()
	args := append([]string{"map", "--output=json", "-U"}, qemuArgs...)
	want, err := inFolder(path, "qemu-img", append(args, path)...)
	if err != nil {
		t.Fatalf("qemu-img map %s: %v\n%s", path, err, origin)
	}
	got, stderr, status := qbit(append(append([]string{"map", "--output=json", "--trust"}, qemuArgs...), path)...)
	if status != 0 || stderr != "" {
		t.Errorf("qbit map %s: status %d, %s\n%s", path, status, stderr, origin)
		return
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("map of %s (-qemu-img +qbit):\n%s\n%s", path, diff, origin)
	}
}

// inFolder runs a tool in the folder of an image with an absolute path: QEMU takes
// the name of a data file as relative to where it runs.
func inFolder(path, tool string, args ...string) ([]byte, error) {
	cmd := exec.Command(tool, args...)
	if filepath.IsAbs(path) {
		cmd.Dir = filepath.Dir(path)
	}
	return cmd.Output()
}

// sameInfo wants every key of qemu-img info in ours, with its value.
func sameInfo(t *testing.T, origin string, args ...string) {
	t.Helper()
	want, err := inFolder(args[len(args)-1], "qemu-img", append([]string{"info", "--output=json", "-U"}, args...)...)
	if err != nil {
		t.Fatalf("qemu-img info %v: %v\n%s", args, err, origin)
	}
	got, stderr, status := qbit(append([]string{"info", "--output=json", "--trust"}, args...)...)
	if status != 0 || stderr != "" {
		t.Errorf("qbit info %v: status %d, %s\n%s", args, status, stderr, origin)
		return
	}
	if problems := missingKeys("", decodeJSON(t, string(want)), decodeJSON(t, got)); len(problems) > 0 {
		t.Errorf("info %v:\n%s\n%s", args, strings.Join(problems, "\n"), origin)
	}
}

func decodeJSON(t *testing.T, text string) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// missingKeys says where got does not have what want has. Only our own key may
// be beside those of qemu-img.
func missingKeys(at string, want, got any) []string {
	switch want := want.(type) {
	case map[string]any:
		return missingInObject(at, want, got)
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) != len(want) {
			return []string{fmt.Sprintf("%s: got %v, want %v", at, got, want)}
		}
		var problems []string
		for i := range want {
			problems = append(problems, missingKeys(fmt.Sprintf("%s[%d]", at, i), want[i], list[i])...)
		}
		return problems
	}
	if want != got {
		return []string{fmt.Sprintf("%s: got %v, want %v", at, got, want)}
	}
	return nil
}

func missingInObject(at string, want map[string]any, got any) []string {
	object, ok := got.(map[string]any)
	if !ok {
		return []string{fmt.Sprintf("%s: got %v, want an object", at, got)}
	}
	var problems []string
	for key, value := range want {
		problems = append(problems, missingKeys(at+"."+key, value, object[key])...)
	}
	for key := range object {
		if _, ok := want[key]; !ok && key != "qbit" {
			problems = append(problems, fmt.Sprintf("%s.%s: qemu-img does not have it", at, key))
		}
	}
	return problems
}

var seeds = flag.Uint64("seeds", usualSeeds(), "how many random images the interop tests make with QEMU; of others, five times as many")

func usualSeeds() uint64 {
	if os.Getenv("QBIT_FULL") == "1" {
		return 300
	}
	return 24
}

func TestInteropRandom(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	for seed := range *seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			made := qemumaker.Make(t, t.TempDir(), seed)
			sameInfo(t, made.Options, made.Path)
			sameInfo(t, made.Options, "--backing-chain", made.Path)
			sameMap(t, made.Options, made.Path)
			sameDigest(t, made, made.Path)
			start, length := fmt.Sprint(made.Size/3/512*512), fmt.Sprint(made.Size/2/512*512)
			sameMap(t, made.Options, made.Path, "--start-offset", start, "--max-length", length)
			for i, name := range made.Snapshots {
				if i < 2 {
					sameSnapshot(t, made, name)
				}
			}
		})
	}
}

// sameSnapshot compares the map of a snapshot with that of a copy of the image
// in which QEMU has gone back to it.
func sameSnapshot(t *testing.T, made qemumaker.Made, name string) {
	t.Helper()
	back := filepath.Join(filepath.Dir(made.Path), "back-"+filepath.Base(made.Path))
	content, err := os.ReadFile(made.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(back, content, 0o666); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(back)
	if out, err := exec.Command("qemu-img", "snapshot", "-a", name, back).CombinedOutput(); err != nil {
		t.Logf("qemu-img cannot go back to %s: %v, %s", name, err, out)
		return
	}
	want := dropOffsets(interop.Run(t, "qemu-img", "map", "--output=json", back))
	got, stderr, status := qbit("map", "--output=json", "--trust", made.Path+"@"+name)
	if status != 0 {
		t.Fatalf("snapshot %s: status %d, %s", name, status, stderr)
	}
	if diff := cmp.Diff(want, dropOffsets([]byte(got))); diff != "" {
		t.Errorf("map of snapshot %s (-qemu-img +qbit):\n%s\n%s", name, diff, made.Options)
	}
}

// dropOffsets is a map without offsets, which going back can change; runs that
// only they kept apart are joined.
func dropOffsets(text []byte) []string {
	var list []struct {
		Start, Length, Depth int64
		Present, Zero, Data  bool
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return []string{err.Error()}
	}
	var lines []string
	last := ""
	for _, e := range list {
		// Which stored zeros count as holes depends on the file, and copying changes that.
		kind := fmt.Sprint(e.Depth, e.Present, e.Zero && !e.Data, e.Data)
		if kind == last {
			lines = lines[:len(lines)-1]
		}
		if kind != last || len(lines) == 0 {
			last = kind
		}
		lines = append(lines, fmt.Sprintf("to %d: %s", e.Start+e.Length, kind))
	}
	return lines
}

// TestInteropBuilt compares images that QEMU did not write, with every form of
// cluster and extension.
func TestInteropBuilt(t *testing.T) {
	interop.Need(t, "qemu-img")
	for seed := range 5 * *seeds {
		img := build.Random(seed)
		if img.Spec.Size%512 != 0 || img.Data != nil && img.Spec.DataFile.Name == "" {
			continue // QEMU cuts the last part of a sector off, and cannot open a data file without a name
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			path := writeBuilt(t, img)
			origin := fmt.Sprintf("build.Random(%d)", seed)
			if _, err := exec.Command("qemu-img", "info", path).Output(); err != nil {
				t.Skip("qemu-img does not read it")
			}
			sameInfo(t, origin, path)
			if img.Spec.Backing != "" && img.Spec.BackingFormat == "" {
				return // QEMU looks into it to find the format
			}
			sameMap(t, origin, path)
		})
	}
}

// writeBuilt writes an image with the files that it names.
func writeBuilt(t *testing.T, img build.Sound) string {
	t.Helper()
	dir := t.TempDir()
	if img.Data != nil {
		writeFile(t, filepath.Join(dir, img.Spec.DataFile.Name), img.Data)
	}
	if img.Spec.Backing != "" {
		writeFile(t, filepath.Join(dir, img.Spec.Backing), img.Backing)
	}
	path := dir + "/image.qcow2"
	writeFile(t, path, img.Bytes)
	return path
}

// TestInteropKinds compares images that need something special.
func TestInteropKinds(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	dir := t.TempDir()
	t.Chdir(dir)
	create := func(args ...string) { interop.Run(t, "qemu-img", append([]string{"create", "-q"}, args...)...) }
	write := func(path string, commands ...string) {
		args := []string{}
		for _, c := range commands {
			args = append(args, "-c", c)
		}
		interop.Run(t, "qemu-io", append(args, path)...)
	}
	create("-f", "qcow2", "empty", "0")
	create("-f", "qcow2", "base", "3M")
	write("base", "write 1M 1M")
	create("-f", "qcow2", "-b", "base", "-F", "qcow2", "top", "4M")
	write("top", "write -z 1M 100k", "discard 1536k 64k", "write 2M 1k")
	for _, p := range []string{"metadata", "falloc", "full"} {
		create("-f", "qcow2", "-o", "preallocation="+p, p, "8M")
		write(p, "write 1M 64k")
	}
	create("-f", "qcow2", "-o", "preallocation=metadata,refcount_bits=1,cluster_size=4k", "narrow", "8M")
	create("-f", "qcow2", "-o", "extended_l2=on,preallocation=metadata", "extended", "8M")
	write("extended", "write 1M 4k", "write 2M 64k")
	create("-f", "qcow2", "-o", "extended_l2=on", "-b", "base", "-F", "qcow2", "subclusters", "4M")
	write("subclusters", "write 1M 2k", "write 3500k 10k", "write -z 1100k 64k")
	for _, path := range []string{"empty", "base", "top", "metadata", "falloc", "full", "narrow", "extended", "subclusters", "./top", dir + "/top"} {
		sameMap(t, path, path)
		sameInfo(t, path, "--backing-chain", path)
	}
	create("--object", "secret,id=s,data=x", "-f", "qcow2", "-o", "encrypt.format=aes,encrypt.key-secret=s", "aes", "1M")
	sameInfo(t, "aes", "aes")
	for _, header := range []string{"luks-xts", "luks-essiv"} {
		writeLUKS(t, dir+"/"+header, header)
		sameInfo(t, header, header)
	}
	for _, name := range []string{"gone", "/gone/there", "nbd://localhost/x", `json:{"driver":"null-co"}`, "file:gone", "a/../b"} {
		create("-u", "-f", "qcow2", "-F", "raw", "-b", name, "named", "1M")
		sameInfoPlain(t, "named")
	}
}

// sameInfoPlain compares info where the files that the image names are not there.
func sameInfoPlain(t *testing.T, path string) {
	t.Helper()
	want := interop.Run(t, "qemu-img", "info", "--output=json", path)
	got, _, _ := qbit("info", "--output=json", path)
	if problems := missingKeys("", decodeJSON(t, string(want)), decodeJSON(t, got)); len(problems) > 0 {
		t.Errorf("info:\n%s", strings.Join(problems, "\n"))
	}
}

func TestInteropRaw(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	dir := t.TempDir()
	for i, size := range []int64{0, 5, 512, 4096, 1 << 20, 1<<20 + 700} {
		path := fmt.Sprintf("%s/%d.raw", dir, i)
		writeFile(t, path, nil)
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		if size > 1<<19 {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(make([]byte, 8192), 65536); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		sameMap(t, "raw", path, "-f", "raw")
		sameInfo(t, "raw", "-f", "raw", path)
		if size == 0 {
			continue
		}
		top := path + ".qcow2"
		interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", path, top, "2M")
		sameMap(t, "over raw", top)
		sameInfo(t, "over raw", "--backing-chain", top)
	}
}
