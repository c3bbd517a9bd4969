package main

import "github.com/qbitkit/qbit/testimages/chainmaker"

// A set is one frozen chain.
type set struct {
	name  string
	plain bool // files as they are, without the live image: for people to try by hand
	spec  chainmaker.Spec
}

type target = chainmaker.Target

// sets are small: every byte of them is in the repository for good.
var sets = []set{
	{name: "demo", plain: true, spec: chainmaker.Spec{
		Seed: 7, Sizes: []int64{8<<20 + 512}, Increments: 5, Writes: 3,
		Full: target{ClusterSize: 8 << 10}, Targets: []target{{ClusterSize: 8 << 10}},
	}},
	{name: "plain64k", spec: chainmaker.Spec{Seed: 1, Writes: 8}},
	{name: "mixed", spec: chainmaker.Spec{
		Seed: 2, Sizes: []int64{17<<20 + 1536}, Writes: 8,
		SourceCluster: 16 << 10, SourceExtendedL2: true,
		Full: target{ClusterSize: 128 << 10},
		Targets: []target{
			{ClusterSize: 4 << 10},
			{ClusterSize: 64 << 10, ExtendedL2: true},
			{Compression: "zstd"},
			{ClusterSize: 128 << 10, ExtendedL2: true, Compression: "zstd", Backing: chainmaker.BackingNone},
			{ClusterSize: 4 << 10, Compression: "zlib", Backing: chainmaker.BackingAttached},
			{ClusterSize: 512 << 10, Backing: chainmaker.BackingNone},
		},
	}},
	{name: "resize", spec: chainmaker.Spec{
		Seed: 3, Sizes: []int64{12<<20 + 512}, Writes: 6,
		Resize: map[int]int64{2: 20<<20 + 1024, 4: 8 << 20, 5: 16<<20 + 512},
	}},
	{name: "v2", spec: chainmaker.Spec{
		Seed: 4, Sizes: []int64{12<<20 + 512}, Writes: 6,
		Full: target{Compat: "0.10"},
		Targets: []target{
			{Compat: "0.10"},
			{Compat: "0.10", Backing: chainmaker.BackingNone},
			{Compat: "0.10", Backing: chainmaker.BackingAttached},
			{Compat: "0.10", Backing: chainmaker.BackingNone, Compression: "zlib"},
			{Compat: "0.10", Backing: chainmaker.BackingNone},
			{Compat: "0.10"},
		},
	}},
	{name: "raw", spec: chainmaker.Spec{
		Seed: 5, Sizes: []int64{12<<20 + 512}, Writes: 6,
		Full:    target{Format: "raw"},
		Targets: []target{{Format: "raw"}, {Format: "raw"}, {}, {Format: "raw"}},
	}},
	{name: "twodisks", spec: chainmaker.Spec{
		Seed: 6, Sizes: []int64{4<<20 + 512, 6 << 20}, Increments: 3, Writes: 4,
	}},
}
