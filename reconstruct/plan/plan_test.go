package plan

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/streams"
)

// image is a small qcow2 image with a backing name.
func image(size uint64, backing string, change ...func(*build.Spec)) *fstest.MapFile {
	s := build.Spec{Size: size, Backing: backing}
	for _, c := range change {
		c(&s)
	}
	return &fstest.MapFile{Data: build.Must(s).Bytes}
}

func text(format string, args ...any) *fstest.MapFile {
	return &fstest.MapFile{Data: fmt.Appendf(nil, format, args...)}
}

// stream is a stream of virtnbdbackup, with one frame of data.
func stream(disk, checkpoint, parent, date string) *fstest.MapFile {
	w := streams.New(streams.Meta{VirtualSize: 4096, DataSize: 512, DiskName: disk, CheckpointName: checkpoint,
		ParentCheckpoint: parent, Incremental: parent != "", Date: date, StreamVersion: 2})
	w.Data(0, make([]byte, 512))
	w.Stop()
	return &fstest.MapFile{Data: w.Bytes()}
}

// checkpoint is the XML of a checkpoint of the disk vda.
func checkpoint(name, parent, source string) *fstest.MapFile {
	above := ""
	if parent != "" {
		above = "<parent><name>" + parent + "</name></parent>"
	}
	return text("<domaincheckpoint><name>%s</name>%s<disks><disk name='vda' checkpoint='bitmap' bitmap='%s'/></disks>"+
		"<domain type='qemu'><name>web</name><uuid>4017e7d0-6b74-4069-9fec-07ddf6d21bb2</uuid><memory>1</memory><os><type>hvm</type></os><devices>"+
		"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='%s'/><target dev='vda' bus='virtio'/></disk></devices></domain></domaincheckpoint>",
		name, above, name, source)
}

// job is the XML of a backup of vda to a file.
func job(file, base string) *fstest.MapFile {
	since := ""
	if base != "" {
		since = "<incremental>" + base + "</incremental>"
	}
	return text("<domainbackup mode='push'>%s<disks><disk name='vda' type='file'><target file='/elsewhere/%s'/><driver type='qcow2'/></disk></disks></domainbackup>", since, file)
}

const live = "/var/lib/live.qcow2"

// pushed is a sound folder of libvirt with three points.
func pushed() fstest.MapFS {
	return fstest.MapFS{
		"a.xml": checkpoint("a", "", live), "a.backup.xml": job("full.qcow2", ""), "full.qcow2": image(4096, ""),
		"b.xml": checkpoint("b", "a", live), "b.backup.xml": job("one.qcow2", "a"), "one.qcow2": image(4096, live),
		"c.xml": checkpoint("c", "b", live), "c.backup.xml": job("two.qcow2", "b"), "two.qcow2": image(4096, live),
	}
}

// both are two domains in folders side by side; the second lacks an increment,
// which the other has.
func both() fstest.MapFS {
	files := fstest.MapFS{}
	for name, f := range pushed() {
		files["one/"+name] = f
		if name != "one.qcow2" {
			files["two/"+name] = &fstest.MapFile{Data: []byte(strings.ReplaceAll(strings.ReplaceAll(string(f.Data), "<name>web<", "<name>xyz<"), "4017e7d0", "5017e7d0"))}
		}
	}
	return files
}

// history describes a plan in a line a backup: point, kind, parent and grade, and
// the problems that are worse than notes.
func history(p *Plan) string {
	var b strings.Builder
	for _, d := range p.Disks {
		for _, at := range d.Backups {
			fmt.Fprintf(&b, "%s/%s %s", d.Name, at.Point, at.Kind)
			if at.Parent != nil {
				fmt.Fprintf(&b, " on %s, %s", at.Parent.Point, at.Edge.Grade)
			}
			for _, q := range at.Problems {
				fmt.Fprintf(&b, " %s:%s", q.Severity, q.Kind)
			}
			b.WriteString("\n")
		}
	}
	for _, q := range p.Problems {
		fmt.Fprintf(&b, "%s:%s\n", q.Severity, q.Kind)
	}
	return b.String()
}

func TestDiscover(t *testing.T) {
	with := func(files fstest.MapFS, change func(fstest.MapFS)) fstest.MapFS {
		change(files)
		return files
	}
	tests := []struct {
		name  string
		files fstest.MapFS
		want  string
	}{
		{"push", pushed(), "vda/a full\nvda/b incremental on a, proven\nvda/c incremental on b, proven\n"},
		{"push without the middle", with(pushed(), func(f fstest.MapFS) { delete(f, "one.qcow2") }),
			"vda/a full\nvda/c incremental refuse:gap\ndoubt:missing-file\n"},
		{"push without backup XML, names hold the checkpoints", fstest.MapFS{
			"a.xml": checkpoint("a", "", live), "vda-a.qcow2": image(4096, ""), "b.xml": checkpoint("b", "a", live), "vda-b.qcow2": image(4096, live)},
			"vda/a full\nvda/b incremental on a, implied\n"},
		{"an increment of another disk", with(pushed(), func(f fstest.MapFS) { f["two.qcow2"] = image(4096, "/var/lib/other.qcow2") }),
			"vda/a full\nvda/b incremental on a, proven\nvda/c incremental on b, proven refuse:foreign\n"},
		{"a full under an increment's name", with(pushed(), func(f fstest.MapFS) { f["two.qcow2"] = image(4096, "") }),
			"vda/a full\nvda/b incremental on a, proven\nvda/c incremental on b, assumed doubt:full-as-inc refuse:assumed\n"},
		{"an increment as the full", with(pushed(), func(f fstest.MapFS) { f["full.qcow2"] = image(4096, live) }),
			"vda/a full refuse:contradiction\nvda/b incremental on a, proven\nvda/c incremental on b, proven\n"},
		{"the disk grew", with(pushed(), func(f fstest.MapFS) { f["two.qcow2"] = image(8192, live) }),
			"vda/a full\nvda/b incremental on a, proven\nvda/c incremental on b, proven note:resized\n"},
		{"flat rebase of a push folder", with(pushed(), func(f fstest.MapFS) {
			f["one.qcow2"], f["two.qcow2"] = image(4096, "full.qcow2"), image(4096, "full.qcow2")
		}), "vda/a full\nvda/b incremental on a, proven note:flat-rebase\nvda/c incremental on b, proven note:flat-rebase\n"},
		{"the disk itself lies there", with(pushed(), func(f fstest.MapFS) {
			f["live.qcow2"] = image(4096, "", func(s *build.Spec) { s.Bitmaps = []build.Bitmap{{Name: "a", GranularityBits: 9}} })
		}), "vda/a full\nvda/b incremental on a, proven\nvda/c incremental on b, proven\n"},
		{"two domains in folders side by side", both(), "vda/a full\nvda/b incremental on a, proven\nvda/c incremental on b, proven\n" +
			"vda/a full\nvda/c incremental refuse:gap\ndoubt:missing-file\n"},
		{"streams", fstest.MapFS{"vda.full.data": stream("vda", "p.0", "", ""), "vda.inc.p.1.data": stream("vda", "p.1", "p.0", ""), "vda.inc.p.2.data": stream("vda", "p.2", "p.1", "")},
			"vda/p.0 full\nvda/p.1 incremental on p.0, proven\nvda/p.2 incremental on p.1, proven\n"},
		{"streams under each other's names", fstest.MapFS{"vda.full.data": stream("vda", "p.0", "", ""), "vda.inc.p.2.data": stream("vda", "p.1", "p.0", ""), "vda.inc.p.1.data": stream("vda", "p.2", "p.1", "")},
			"vda/p.0 full\nvda/p.1 incremental on p.0, proven note:contradiction\nvda/p.2 incremental on p.1, proven note:contradiction\n"},
		{"two fulls, dates tell", fstest.MapFS{"vda.full.data": stream("vda", "p.0", "", "2026-01-01T00:00:00"), "vda.inc.p.0.data": stream("vda", "p.0", "", "2026-01-03T00:00:00"),
			"vda.inc.p.1.data": stream("vda", "p.1", "p.0", "2026-01-04T00:00:00")},
			"vda/p.0 full doubt:candidates\nvda/p.0 full note:full-as-inc doubt:candidates\nvda/p.1 incremental on p.0, proven note:candidates\n"},
		{"two fulls, no dates", fstest.MapFS{"vda.full.data": stream("vda", "p.0", "", ""), "vda.inc.p.0.data": stream("vda", "p.0", "", ""), "vda.inc.p.1.data": stream("vda", "p.1", "p.0", "")},
			"vda/p.0 full doubt:candidates\nvda/p.0 full note:full-as-inc doubt:candidates\nvda/p.1 incremental refuse:candidates\n"},
		{"a stream of another disk", fstest.MapFS{"vda.full.data": stream("vda", "p.0", "", ""), "vda.inc.p.1.data": stream("vdb", "p.1", "p.0", "")},
			"vda/p.0 full\nvda/p.1 incremental on p.0, proven refuse:foreign\n"},
		{"a stream from another day", fstest.MapFS{"vda.full.data": stream("vda", "p.0", "", "2026-01-05T00:00:00"), "vda.inc.p.1.data": stream("vda", "p.1", "p.0", "2026-01-03T00:00:00")},
			"vda/p.0 full doubt:contradiction\nvda/p.1 incremental on p.0, proven doubt:contradiction\n"},
		{"partial", fstest.MapFS{"vda.full.data.partial": stream("vda", "p.0", "", "")}, "vda/p.0 full refuse:partial\n"},
		{"a broken stream", fstest.MapFS{"vda.full.data": stream("vda", "p.0", "", ""), "vda.inc.p.1.data": text("metb 0000")},
			"vda/p.1 incremental refuse:unreadable refuse:gap\nvda/p.0 full\n"},
		{"backing chain", fstest.MapFS{"x.qcow2": image(4096, ""), "m.qcow2": image(4096, "x.qcow2"), "a.qcow2": image(4096, "./m.qcow2")},
			"x/x full\nx/m incremental on x, implied\nx/a incremental on m, implied\n"},
		{"backing chain, rebased flatly", fstest.MapFS{"x.qcow2": image(4096, ""), "m.qcow2": image(4096, "x.qcow2"), "a.qcow2": image(4096, "x.qcow2")},
			"x/x full\nx/a incremental on x, assumed note:flat-rebase refuse:assumed\nx/m incremental on x, assumed note:flat-rebase refuse:assumed\n"},
		{"backing chain that loops", fstest.MapFS{"m.qcow2": image(4096, "a.qcow2"), "a.qcow2": image(4096, "m.qcow2")},
			"a/a incremental doubt:contradiction refuse:loop\na/m incremental on a, assumed doubt:contradiction refuse:loop refuse:assumed\n"},
		{"backing file that leads out", fstest.MapFS{"m.qcow2": image(4096, "../../etc/passwd")}, "m/m incremental refuse:gap\n"},
		{"numbers with a gap", fstest.MapFS{"q/disk.0.0": image(4096, "nbd:x"), "r/disk.0.1": image(4096, "nbd:x"), "s/disk.0.3": image(4096, "nbd:x")},
			"0/0 full\n0/1 incremental on 0, implied\n0/3 incremental refuse:gap\n"},
		{"times", fstest.MapFS{"n/FULL-1700000000-d.qcow2": image(4096, ""), "n/INC-1700000200-d.qcow2": image(4096, ""), "n/INC-1700000100-d.qcow2": image(4096, "")},
			"d.qcow2/1700000000 full\nd.qcow2/1700000100 incremental on 1700000000, assumed refuse:assumed\nd.qcow2/1700000200 incremental on 1700000100, assumed refuse:assumed\n"},
		{"an index that names itself", fstest.MapFS{"index.json": text(`{"checkpoints":[{"id":"a","parent":"a","files":["f-disk.qcow2"]}]}`), "a/f-disk.qcow2": image(4096, "x")},
			"disk/a incremental refuse:gap\n"},
		{"a file of another size than the index says", fstest.MapFS{"index.json": text(`{"checkpoints":[{"id":"a","files":[{"filename":"f","diskName":"d","size":1}]}]}`), "a/f": image(4096, "")},
			"d/a full refuse:contradiction\n"},
		{"names alone", fstest.MapFS{"full.qcow2": image(4096, ""), "inc10.qcow2": image(4096, live), "inc9.qcow2": image(4096, live)},
			"disk/full full\ndisk/inc9 incremental on full, assumed refuse:assumed\ndisk/inc10 incremental on inc9, assumed refuse:assumed\n"},
		{"images that have nothing to do with each other", fstest.MapFS{"web1.qcow2": image(4096, ""), "web2.qcow2": image(4096, "")},
			"web1/web1 full\nweb2/web2 full\n"},
		{"nothing", fstest.MapFS{"readme.txt": text("hello")}, "refuse:no-backup\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p, err := Discover(context.Background(), test.files, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := history(p); got != test.want {
				t.Errorf("got\n%swanted\n%s", got, test.want)
			}
		})
	}
}

// TestFileTimes: the plan is the same whatever the files' times are.
func TestFileTimes(t *testing.T) {
	for _, s := range []string{"2001-01-01", "2031-01-01"} {
		files := pushed()
		files["one.qcow2"].ModTime, _ = ParseTime(s)
		p, err := Discover(context.Background(), files, nil)
		if err != nil || !strings.Contains(history(p), "vda/c incremental on b, proven") {
			t.Errorf("%s: %v\n%s", s, err, history(p))
		}
	}
}

func TestLimits(t *testing.T) {
	files := fstest.MapFS{}
	for i := range 20 {
		files[fmt.Sprintf("%sx%d.qcow2", strings.Repeat("d/", i), i)] = image(4096, "")
	}
	p, err := Discover(context.Background(), files, &Options{MaxDepth: 3})
	if err != nil || len(p.Disks) != 4 || !strings.Contains(history(p), "doubt:limit") {
		t.Errorf("depth: %v\n%s", err, history(p))
	}
	p, err = Discover(context.Background(), files, &Options{MaxFiles: 5})
	if err != nil || len(p.Disks) != 5 || !strings.Contains(history(p), "doubt:limit") {
		t.Errorf("files: %v\n%s", err, history(p))
	}
}

// TestLongChain: a chain of ten thousand links costs neither time nor stack.
func TestLongChain(t *testing.T) {
	g := &group{byPoint: map[string][]int{}, byID: map[string]int{}}
	const n = 10_000
	for i := range n {
		m := &member{item: &item{entry: &entry{path: fmt.Sprint(i)}, image: &imageHead{size: 1}}, kind: Incremental, point: fmt.Sprint(i)}
		m.claim(claim{point: fmt.Sprint(i - 1), Evidence: Evidence{Grade: Proven}})
		if i == 0 {
			m.kind = Full
		}
		g.add(m)
	}
	d := g.disk(groupKey{})
	route, err := d.Route(d.Backups[n-1], false)
	if err != nil || len(route) != n || route[0].Kind != Full {
		t.Errorf("%d links, %v", len(route), err)
	}
}

func TestAt(t *testing.T) {
	files := fstest.MapFS{"vda.full.data": stream("vda", "p.0", "", "2026-01-01T10:00:00Z"), "vda.inc.p.1.data": stream("vda", "p.1", "p.0", "2026-01-02T10:00:00Z"),
		"vda.inc.p.2.data": stream("vda", "p.2", "p.1", "2026-01-03T10:00:00Z")}
	p, err := Discover(context.Background(), files, nil)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ at, want string }{
		{"p.1", "p.1"}, {"vda.inc.p.2.data", "p.2"}, {"2026-01-02T11:00:00Z", "p.1"}, {"2026-01-02T10:00:00Z", "p.1"},
		{"2030-01-01", "p.2"}, {"2026-01-02", "p.1"}, {"2020-01-01", ""}, {"p.3", ""},
	}
	for _, test := range tests {
		found, err := p.Disks[0].At(test.at)
		got := ""
		if err == nil {
			got = found[0].Point
		}
		if got != test.want {
			t.Errorf("at %s: %q, wanted %q (%v)", test.at, got, test.want, err)
		}
	}
}

func TestCompareNatural(t *testing.T) {
	sorted := []string{"", "0", "1", "2", "10", "a", "a1", "a1b", "a2", "a02b", "a10", "b"}
	for i, a := range sorted {
		for j, b := range sorted {
			if got, want := compareNatural(a, b), slices.Compare([]int{i}, []int{j}); got != want {
				t.Errorf("%q and %q: %d, wanted %d", a, b, got, want)
			}
		}
	}
}
