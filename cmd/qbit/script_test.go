package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/qbitkit/qbit/testimages/build"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"qbit": func() { os.Exit(run(context.Background(), systemConsole(), os.Args[1:])) },
		// measure runs a command and tells what it used (see runMeasured).
		"measure": measureMain,
	})
}

// TestScripts runs the command as a shell would. Beside the commands of
// testscript there are
//
//	status N COMMAND…       runs COMMAND, which must end with status N
//	image FILE [KEY=VALUE…] makes an image (see scriptImage)
//	patch FILE OFFSET HEX   overwrites bytes of a file
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": scriptStatus, "image": scriptImage, "patch": scriptPatch,
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("TZ", "UTC")
			e.Setenv("CHAINS", filepath.Join(must(os.Getwd()), "../../testimages/chains"))
			return nil
		},
		Condition: func(cond string) (bool, error) {
			tool, ok := strings.CutPrefix(cond, "have:")
			if !ok {
				return false, fmt.Errorf("unknown condition %s", cond)
			}
			_, err := exec.LookPath(tool)
			if err != nil && os.Getenv("QBIT_REQUIRE_INTEROP") == "1" {
				return false, err
			}
			return err == nil, nil
		},
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func scriptStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND…")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := err.(*exec.ExitError); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("the status is %d, not %s", got, args[0])
	}
}

// scriptImage makes a qcow2 image of 16 clusters of 4 KiB, with data in cluster 1
// and a zero cluster 2. The keys are fields of build.Spec; values may hold the
// escapes of a Go string.
func scriptImage(ts *testscript.TestScript, neg bool, args []string) {
	spec := build.Spec{Size: 16 << 12, ClusterBits: 12, Clusters: map[uint64]build.Cluster{
		1: {Form: build.Normal}, 2: {Form: build.ZeroPlain},
	}}
	for _, arg := range args[1:] {
		key, value, _ := strings.Cut(arg, "=")
		value, err := strconv.Unquote(`"` + strings.ReplaceAll(value, `"`, `\"`) + `"`)
		ts.Check(err)
		ts.Check(setSpec(&spec, key, value))
	}
	img, err := spec.Build()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), img.Bytes, 0o666))
	if img.Data != nil && spec.DataFile.Name != "" {
		ts.Check(os.WriteFile(ts.MkAbs(spec.DataFile.Name), img.Data, 0o666))
	}
}

func setSpec(spec *build.Spec, key, value string) error {
	number := func() uint64 { return must(strconv.ParseUint(value, 0, 64)) }
	switch key {
	case "version":
		// Version 2 has no zero clusters.
		spec.Version, spec.Clusters = int(number()), map[uint64]build.Cluster{1: {Form: build.Normal}}
	case "size":
		spec.Size = number()
	case "backing":
		spec.Backing = value
	case "format":
		spec.BackingFormat = value
	case "data":
		spec.DataFile = &build.DataFile{Name: value}
	case "incompatible":
		spec.Incompatible = number()
	case "crypt":
		spec.CryptMethod = uint32(number())
	case "feature": // KIND,BIT,NAME
		f := strings.SplitN(value, ",", 3)
		spec.FeatureNames = append(spec.FeatureNames, build.Feature{
			Kind: uint8(must(strconv.Atoi(f[0]))), Bit: uint8(must(strconv.Atoi(f[1]))), Name: f[2]})
	case "bitmap": // NAME, or NAME,FLAGS
		name, flags, _ := strings.Cut(value, ",")
		b := build.Bitmap{Name: name, GranularityBits: 12, Dirty: []build.Range{{Off: 4096, Len: 8192}}}
		if flags != "" {
			b.Flags = uint32(must(strconv.Atoi(flags)))
		}
		spec.Bitmaps = append(spec.Bitmaps, b)
	case "stale":
		spec.StaleBitmaps = true
	case "snapshot":
		spec.Snapshots = append(spec.Snapshots, build.Snapshot{ID: fmt.Sprint(len(spec.Snapshots) + 1), Name: value,
			Seconds: 1700000000, Clusters: map[uint64]build.Cluster{0: {Form: build.Normal}}})
	case "extension":
		spec.Extensions = append(spec.Extensions, build.Extension{Type: uint32(number()), Data: []byte("unknown")})
	default:
		return fmt.Errorf("image: unknown key %q", key)
	}
	return nil
}

func scriptPatch(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: patch FILE OFFSET HEX")
	}
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_WRONLY, 0)
	ts.Check(err)
	defer f.Close()
	var b []byte
	_, err = fmt.Sscanf(args[2], "%x", &b)
	ts.Check(err)
	off, err := strconv.ParseInt(args[1], 0, 64)
	ts.Check(err)
	_, err = f.WriteAt(b, off)
	ts.Check(err)
}
