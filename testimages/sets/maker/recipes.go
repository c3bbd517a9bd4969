package maker

// The machine that most sets are of, and what happens to it: every way to make a
// range zero, over data of an earlier backup and in whole units, a point at which
// one disk did not change at all, and the last sector of a disk of an odd size.
var (
	twoDisks = []Disk{{"vda", "qcow2", 8 << 20}, {"vdb", "qcow2", 4<<20 + 512}}

	first = map[string][]string{
		"vda": {"write -P 0x11 0 192k", "write -s NOISE 1M 16k", "write -P 0x12 2M 256k", "write -z 3M 64k", "write -P 0x13 8323072 64k"},
		"vdb": {"write -P 0x21 0 64k", "write -P 0x22 4M 512"},
	}
	second = map[string][]string{
		"vda": {"write -P 0x14 1M 4k", "discard 2M 128k", "write -z 0 64k"},
	}
	third = map[string][]string{
		"vda": {"write -z -u 2228224 64k", "write -P 0x15 3M 32k", "write -s NOISE 4M 8k"},
		"vdb": {"write -P 0x23 1M 64k", "discard 0 64k"},
	}
	fourth = map[string][]string{
		"vda": {"write -P 0x16 2M 64k", "discard 1M 64k"},
		"vdb": {"write -P 0x24 4M 512"},
	}

	fullAndThree = []Step{{Writes: first, Level: "full"}, {Writes: second, Level: "inc"},
		{Writes: third, Level: "inc"}, {Writes: fourth, Level: "inc"}}
)

// Recipes are all frozen sets, in the order of making: "other" comes last, so that
// its streams are newer than those of the set that they are mistaken for.
var Recipes = []Recipe{
	{Name: "plain", Domain: "web", Disks: twoDisks, Steps: fullAndThree},
	{Name: "lz4", Domain: "web", Disks: twoDisks, Flags: []string{"-z"}, Steps: fullAndThree},
	{Name: "zip", Domain: "web", Disks: twoDisks, Zip: true, Steps: fullAndThree[:1]},
	{Name: "zip-lz4", Domain: "web", Disks: twoDisks, Flags: []string{"-z"}, Zip: true, Steps: fullAndThree[:1]},
	{Name: "copy", Domain: "web", Disks: twoDisks, Steps: []Step{{Writes: first, Level: "copy"}}},
	{Name: "diff", Domain: "web", Disks: twoDisks, Steps: []Step{{Writes: first, Level: "full"}, {Writes: second, Level: "inc"},
		{Writes: third, Level: "diff"}, {Writes: fourth, Level: "inc"}}},
	{Name: "rawdisk", Domain: "web", Flags: []string{"-r"},
		Disks: []Disk{{"vda", "qcow2", 8 << 20}, {"vdb", "raw", 1 << 20}},
		Steps: []Step{{Writes: first, Level: "full"}, {Writes: second, Level: "inc"}}},
	{Name: "resize", Domain: "web", Disks: []Disk{{"vda", "qcow2", 8 << 20}}, Steps: []Step{
		{Writes: first, Level: "full"},
		{Resize: map[string]int64{"vda": 12<<20 + 512}, Writes: map[string][]string{"vda": {"write -P 0x17 11M 64k"}}, Level: "inc"},
		{Writes: third, Level: "inc"}}},
	{Name: "chunked", Domain: "web", Disks: []Disk{{"vda", "qcow2", 40 << 20}}, Flags: []string{"-z"}, Steps: []Step{
		{Writes: map[string][]string{"vda": {"write -P 0x31 0 34M"}}, Level: "full"},
		{Writes: map[string][]string{"vda": {"write -P 0x32 1M 33M"}}, Level: "inc"}}},
	{Name: "offline", Domain: "web", Disks: []Disk{{"vda", "qcow2", 8 << 20}}, Steps: []Step{
		{Writes: first, Level: "full"}, {Writes: second, Level: "inc"}, {Writes: fourth, Level: "inc", Offline: true}}},
	{Name: "other", Domain: "mail", Disks: twoDisks, Steps: []Step{
		{Writes: map[string][]string{"vda": {"write -P 0x51 0 128k", "write -P 0x52 5M 64k"}, "vdb": {"write -P 0x53 0 64k"}}, Level: "full"},
		{Writes: map[string][]string{"vda": {"write -P 0x54 1M 64k", "discard 5M 64k"}, "vdb": {"write -P 0x55 2M 64k"}}, Level: "inc"},
		{Writes: map[string][]string{"vda": {"write -P 0x56 3M 64k"}, "vdb": {"write -P 0x57 3M 64k"}}, Level: "inc"}}},
}
