package reconstruct

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
)

func TestWarnings(t *testing.T) {
	r := rand.New(rand.NewPCG(30, 30))
	d := func(kib int64) *fake { return randomFake(r, kib<<10, allKinds...) }
	link := func(kib int64) Link { return Link{Name: "x", Disk: d(kib)} }
	known := link(8)
	known.Changed, known.Raw = mustBitmap(t, 8<<10, 512), true
	raw := link(8)
	raw.Raw = true
	v2 := link(8)
	v2.Lossy = "qcow2 version 2"
	solid := Link{Name: "x", Disk: newFake(r, 8<<10, 512, func(int) qcow2.Kind { return qcow2.Data }), Raw: true}
	for name, c := range map[string]struct {
		links []Link
		want  string
	}{
		"none":          {nil, ""},
		"no disk":       {[]Link{{}}, ""},
		"fine":          {[]Link{link(8), link(8)}, ""},
		"oldest lossy":  {[]Link{raw, link(8)}, ""},
		"lossy":         {[]Link{link(8), raw, v2}, "1 lossy, 2 lossy"},
		"mended":        {[]Link{link(8), known}, ""},
		"solid":         {[]Link{link(8), solid}, "1 solid"},
		"shrunk":        {[]Link{link(8), link(4)}, "1 shrunk"},
		"grown":         {[]Link{link(4), link(8)}, "1 grown"},
		"regrown":       {[]Link{link(8), link(4), link(8)}, "1 shrunk, 2 regrown"},
		"regrown more":  {[]Link{link(8), link(4), link(16)}, "1 shrunk, 2 regrown"},
		"twice and all": {[]Link{link(16), link(4), link(8), v2}, "1 shrunk, 2 regrown, 3 lossy"},
	} {
		var got []string
		for _, w := range Warnings(c.links) {
			got = append(got, fmt.Sprint(w.Index, " ", w.Kind))
			if w.Link != "x" || !strings.HasSuffix(w.Msg, ".") || w.Kind.Lossy() != (w.Kind == WarnLossy || w.Kind == WarnSolid) {
				t.Errorf("%s: %+v", name, w)
			}
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("%s: %q, want %q", name, s, c.want)
		}
	}
}
