package libvirt

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

// alignDisks are the disks of a domain: two that can be written to, and three that
// cannot.
var alignDisks = []DomainDisk{
	{Target: "vda", Source: "/a", Device: "disk"},
	{Target: "vdb", Source: "/b", Device: "disk"},
	{Target: "vdc", Source: "/c", Device: "disk", ReadOnly: true},
	{Target: "sda", Source: "/cd", Device: "cdrom"},
	{Target: "sdb", Device: "cdrom"},
}

func TestAlign(t *testing.T) {
	for _, test := range []struct{ disks, want string }{
		{"", "vda=x vdb=x vdc= sda= sdb="},
		{"vdb", "vda= vdb=x vdc= sda= sdb="},
		{"/b vda=y", "vda=y vdb=x vdc= sda= sdb="},
		{"sda=no vdc=no vdb", "vda= vdb=x vdc= sda= sdb="},
		{"vda=no", "vda= vdb= vdc= sda= sdb="},
	} {
		c := &Checkpoint{Name: "x"}
		for _, word := range strings.Fields(test.disks) {
			name, bitmap, _ := strings.Cut(word, "=")
			d := CheckpointDisk{Name: name, Bitmap: bitmap, Size: -1}
			if bitmap == "no" {
				d.Bitmap, d.Checkpoint = "", "no"
			}
			c.Disks = append(c.Disks, d)
		}
		if err := c.Align(alignDisks); err != nil {
			t.Errorf("%s: %v", test.disks, err)
			continue
		}
		var got []string
		for _, d := range c.Disks {
			got = append(got, d.Name+"="+d.Bitmap)
		}
		if s := strings.Join(got, " "); s != test.want {
			t.Errorf("%s: %s, want %s", test.disks, s, test.want)
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", test.disks, err)
		}
	}
}

func TestAlignRefused(t *testing.T) {
	for disks, want := range map[string]string{
		"vdz":    `no disk "vdz": there are "vda", "vdb", "vdc", "sda", "sdb"`,
		"vda /a": "listed twice",
		"vdc":    "the disk is read-only",
		"/cd":    "the disk is read-only",
		"sdb":    "the disk is empty",
	} {
		c := &Checkpoint{Name: "x"}
		for _, name := range strings.Fields(disks) {
			c.Disks = append(c.Disks, CheckpointDisk{Name: name})
		}
		before := fmt.Sprint(c.Disks)
		err := c.Align(alignDisks)
		if err == nil || !strings.Contains(err.Error(), want) || disks == "vdz" && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want %s", disks, err, want)
		}
		if fmt.Sprint(c.Disks) != before {
			t.Errorf("%s: changed to %v", disks, c.Disks)
		}
	}
	if err := new(Checkpoint).Align(nil); err == nil {
		t.Error("a domain without disks was taken")
	}
}
