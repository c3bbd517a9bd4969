package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"iter"
	"strings"
	"unicode/utf8"

	"github.com/qbitkit/qbit/qcow2"
)

// An infoReport has the keys of qemu-img info --output=json, and ours. Strings
// are exact as far as JSON can hold them: a name that is no UTF-8 stands beside
// them in hex.
type infoReport struct {
	VirtualSize     *int64        `json:"virtual-size,omitempty"`
	Filename        string        `json:"filename"`
	ClusterSize     int64         `json:"cluster-size,omitempty"`
	Format          string        `json:"format,omitempty"`
	ActualSize      *int64        `json:"actual-size,omitempty"`
	Encrypted       bool          `json:"encrypted,omitempty"`
	FormatSpecific  *specificInfo `json:"format-specific,omitempty"`
	BackingFilename string        `json:"backing-filename,omitempty"`
	FullBacking     string        `json:"full-backing-filename,omitempty"`
	BackingFormat   string        `json:"backing-filename-format,omitempty"`
	Snapshots       jsonList      `json:"snapshots,omitempty"` // of snapshotInfo
	DirtyFlag       *bool         `json:"dirty-flag,omitempty"`
	Qbit            *qbitInfo     `json:"qbit"`
}

func (*infoReport) streamed()   {}
func (*specificInfo) streamed() {}
func (qcow2Specs) streamed()    {}
func (*qbitInfo) streamed()     {}

type specificInfo struct {
	Type string     `json:"type"`
	Data qcow2Specs `json:"data"`
}

type qcow2Specs struct {
	Compat        string         `json:"compat"`
	Compression   string         `json:"compression-type"`
	LazyRefcounts *bool          `json:"lazy-refcounts,omitempty"`
	Bitmaps       jsonList       `json:"bitmaps,omitempty"`
	RefcountBits  int            `json:"refcount-bits"`
	Encrypt       map[string]any `json:"encrypt,omitempty"`
	DataFile      string         `json:"data-file,omitempty"`
	DataFileRaw   *bool          `json:"data-file-raw,omitempty"`
	Corrupt       *bool          `json:"corrupt,omitempty"`
	ExtendedL2    *bool          `json:"extended-l2,omitempty"`
}

type bitmapBrief struct {
	Flags       []string `json:"flags"`
	Name        string   `json:"name"`
	Granularity int64    `json:"granularity"`
}

type snapshotInfo struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	VMStateSize uint64 `json:"vm-state-size"`
	DateSec     int64  `json:"date-sec"`
	DateNsec    int64  `json:"date-nsec"`
	VMClockSec  uint64 `json:"vm-clock-sec"`
	VMClockNsec uint64 `json:"vm-clock-nsec"`
	ICount      *int64 `json:"icount,omitempty"` // signed, as qemu-img has it
}

// A qbitInfo is what only qbit says.
type qbitInfo struct {
	Error          string            `json:"error,omitempty"` // why there is nothing else
	Size           *int64            `json:"size,omitempty"`  // of the disk, to the byte
	FileSize       int64             `json:"file-size,omitempty"`
	Header         map[string]uint64 `json:"header,omitempty"`
	Features       []featureInfo     `json:"features,omitempty"`
	FeatureNames   []featureInfo     `json:"feature-names,omitempty"`
	Extensions     []extensionInfo   `json:"extensions,omitempty"`
	Bitmaps        jsonList          `json:"bitmaps,omitempty"` // of bitmapInfo
	BitmapsStale   bool              `json:"bitmaps-stale,omitempty"`
	BitmapsError   string            `json:"bitmaps-error,omitempty"`
	Snapshots      jsonList          `json:"snapshots,omitempty"` // of snapshotMore
	SnapshotsError string            `json:"snapshots-error,omitempty"`
	Refs           []refInfo         `json:"references,omitempty"`

	fields       []headerField // Header in its order
	eachBitmap   iter.Seq[bitmapInfo]
	eachSnapshot iter.Seq[qcow2.Snapshot]
}

type featureInfo struct {
	Kind    string `json:"kind"`
	Bit     uint8  `json:"bit"`
	Name    string `json:"name"`
	NameHex string `json:"name-hex,omitempty"`
}

type extensionInfo struct {
	Type   uint32 `json:"type"`
	Name   string `json:"name"`
	Offset uint64 `json:"offset"`
	Length int    `json:"length"`
	Data   string `json:"data,omitempty"` // hex, of types that nobody knows
}

type snapshotMore struct {
	ID       string `json:"id"`
	IDHex    string `json:"id-hex,omitempty"`
	Name     string `json:"name"`
	NameHex  string `json:"name-hex,omitempty"`
	DiskSize uint64 `json:"disk-size"`
}

type refInfo struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	NameHex string `json:"name-hex,omitempty"`
	Format  string `json:"format,omitempty"`
	Opened  string `json:"opened,omitempty"` // the path that was opened for it
	Problem string `json:"problem,omitempty"`
}

// reportLayer reports one image, without the layers below it.
func reportLayer(ctx context.Context, l *layer) *infoReport {
	size, actual := l.disk.Size(), allocatedBytes(l.file.info)
	exact, dirty := size, false
	r := &infoReport{Filename: l.path, Format: l.format, VirtualSize: &size, ActualSize: &actual, DirtyFlag: &dirty,
		Qbit: &qbitInfo{Size: &exact, FileSize: l.file.size}}
	if l.image == nil {
		size = wholeSectors(size) // QEMU counts a raw disk in sectors
		return r
	}
	dirty = l.image.Dirty()
	r.ClusterSize = l.image.Geometry().ClusterSize()
	r.Encrypted = l.image.Encryption() != ""
	r.reportRefs(l)
	r.reportSnapshots(l.image)
	r.FormatSpecific = &specificInfo{Type: formatQcow2, Data: specsOf(l)}
	r.Qbit.reportHeader(l.image)
	r.reportBitmaps(ctx, l.image)
	return r
}

// specsOf is what qemu-img calls format specific; version 2 says less.
func specsOf(l *layer) qcow2Specs {
	img := l.image
	s := qcow2Specs{Compat: "0.10", Compression: img.CompressionType(), RefcountBits: img.Geometry().RefcountBits(),
		Encrypt: encryptInfo(l)}
	if img.Header().Version < 3 {
		return s
	}
	lazy, corrupt, extended := img.LazyRefcounts(), img.Corrupt(), img.Geometry().ExtendedL2
	s.Compat, s.LazyRefcounts, s.Corrupt, s.ExtendedL2 = "1.1", &lazy, &corrupt, &extended
	if ref := img.DataFile(); ref != nil {
		s.DataFile, s.DataFileRaw = ref.Name, &ref.Raw
	}
	return s
}

// reportRefs reports the files that the image names, and what became of them.
func (r *infoReport) reportRefs(l *layer) {
	if ref := l.image.Backing(); ref != nil {
		r.BackingFilename, r.BackingFormat = ref.Name, ref.Format
		r.FullBacking = fullRefName(l.path, ref.Name)
		opened := ""
		if l.backing != nil {
			opened = l.backing.path
		}
		r.Qbit.addRef(ref, opened, l.closed)
	}
	if ref := l.image.DataFile(); ref != nil {
		r.Qbit.addRef(ref, "", nil)
	}
}

func (q *qbitInfo) addRef(ref *qcow2.Ref, opened string, problem error) {
	info := refInfo{Kind: ref.Kind.String(), Name: ref.Name, NameHex: hexOf(ref.Name), Format: ref.Format, Opened: opened}
	if problem != nil {
		info.Problem = escapeText(problem.Error())
	}
	q.Refs = append(q.Refs, info)
}

func (r *infoReport) reportSnapshots(img *qcow2.Image) {
	q := r.Qbit
	q.eachSnapshot = func(yield func(qcow2.Snapshot) bool) {
		for s, err := range img.EachSnapshot() {
			if err != nil {
				q.SnapshotsError = escapeText(err.Error())
				return
			}
			if !yield(s) {
				return
			}
		}
	}
	as := func(what func(qcow2.Snapshot) any) jsonList {
		return func(yield func(any) bool) {
			for s := range q.eachSnapshot {
				if !yield(what(s)) {
					return
				}
			}
		}
	}
	r.Snapshots = as(func(s qcow2.Snapshot) any { return snapshotInfoOf(s) })
	q.Snapshots = as(func(s qcow2.Snapshot) any {
		return snapshotMore{ID: s.ID, IDHex: hexOf(s.ID), Name: s.Name, NameHex: hexOf(s.Name), DiskSize: s.DiskSize}
	})
}

func snapshotInfoOf(s qcow2.Snapshot) snapshotInfo {
	return snapshotInfo{ID: s.ID, Name: s.Name, VMStateSize: s.VMStateSize,
		DateSec: s.Date.Unix(), DateNsec: int64(s.Date.Nanosecond()),
		VMClockSec: s.VMClock / 1e9, VMClockNsec: s.VMClock % 1e9, ICount: signed(s.ICount)}
}

func signed(n *uint64) *int64 {
	if n == nil {
		return nil
	}
	v := int64(*n)
	return &v
}

// reportHeader reports every field of the header under the specification's name.
func (q *qbitInfo) reportHeader(img *qcow2.Image) {
	h := img.Header()
	q.fields, q.Header = headerFields(&h), make(map[string]uint64)
	for _, f := range q.fields {
		q.Header[f.name] = f.value
	}
	q.Features = featuresOf(img)
	for _, n := range img.FeatureNames() {
		q.FeatureNames = append(q.FeatureNames, featureInfo{Kind: featureKind(n.Kind), Bit: n.Bit, Name: n.Name, NameHex: hexOf(n.Name)})
	}
	for _, e := range img.Extensions() {
		info := extensionInfo{Type: e.Type, Name: e.Name(), Offset: uint64(e.Host), Length: len(e.Data)}
		if info.Name == "unknown" {
			info.Data = hex.EncodeToString(e.Data)
		}
		q.Extensions = append(q.Extensions, info)
	}
}

type headerField struct {
	name  string
	value uint64
	hex   bool // a place in the file, or a set of bits
}

// headerFields are the fields in their order in the file.
func headerFields(h *qcow2.Header) []headerField {
	return []headerField{
		{"version", uint64(h.Version), false},
		{"backing_file_offset", uint64(h.BackingFileOffset), true},
		{"backing_file_size", uint64(h.BackingFileSize), false},
		{"cluster_bits", uint64(h.ClusterBits), false},
		{"size", h.Size, false},
		{"crypt_method", uint64(h.CryptMethod), false},
		{"l1_size", uint64(h.L1Size), false},
		{"l1_table_offset", uint64(h.L1TableOffset), true},
		{"refcount_table_offset", uint64(h.RefcountTableOffset), true},
		{"refcount_table_clusters", uint64(h.RefcountTableClusters), false},
		{"nb_snapshots", uint64(h.NbSnapshots), false},
		{"snapshots_offset", uint64(h.SnapshotsOffset), true},
		{"incompatible_features", h.IncompatibleFeatures, true},
		{"compatible_features", h.CompatibleFeatures, true},
		{"autoclear_features", h.AutoclearFeatures, true},
		{"refcount_order", uint64(h.RefcountOrder), false},
		{"header_length", uint64(h.HeaderLength), false},
		{"compression_type", uint64(h.CompressionType), false},
	}
}

// featuresOf are the feature bits that are set, by name: the specification's, or
// that of the image's own table for a bit that is not in it.
func featuresOf(img *qcow2.Image) []featureInfo {
	h := img.Header()
	var set []featureInfo
	own := img.FeatureNames()
	for kind, bits := range []uint64{h.IncompatibleFeatures, h.CompatibleFeatures, h.AutoclearFeatures} {
		for bit := range uint8(64) {
			if bits>>bit&1 != 0 {
				name := nameFeature(own, uint8(kind), bit)
				set = append(set, featureInfo{Kind: featureKind(uint8(kind)), Bit: bit, Name: name, NameHex: hexOf(name)})
			}
		}
	}
	return set
}

// knownFeatures are the specification's names.
var knownFeatures = map[[2]uint8]string{
	{qcow2.FeatureIncompatible, 0}: "dirty bit",
	{qcow2.FeatureIncompatible, 1}: "corrupt bit",
	{qcow2.FeatureIncompatible, 2}: "external data file",
	{qcow2.FeatureIncompatible, 3}: "compression type",
	{qcow2.FeatureIncompatible, 4}: "extended L2 entries",
	{qcow2.FeatureCompatible, 0}:   "lazy refcounts",
	{qcow2.FeatureAutoclear, 0}:    "bitmaps",
	{qcow2.FeatureAutoclear, 1}:    "raw external data",
}

func nameFeature(own []qcow2.FeatureName, kind, bit uint8) string {
	if name, ok := knownFeatures[[2]uint8{kind, bit}]; ok {
		return name
	}
	for _, n := range own {
		if n.Kind == kind && n.Bit == bit && n.Name != "" {
			return n.Name
		}
	}
	return "unknown"
}

func featureKind(kind uint8) string {
	kinds := [...]string{"incompatible", "compatible", "autoclear"}
	if int(kind) < len(kinds) {
		return kinds[kind]
	}
	return fmt.Sprintf("kind %d", kind)
}

// hexOf is a name in hex if it is no UTF-8, which JSON could not hold.
func hexOf(s string) string {
	if utf8.ValidString(s) {
		return ""
	}
	return hex.EncodeToString([]byte(s))
}

// oneLine joins words for a table; "-" for none.
func oneLine(words []string) string {
	if len(words) == 0 {
		return "-"
	}
	return strings.Join(words, ", ")
}
