package plan

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// A pushes is what lies in a folder of libvirt's documents and of the images that
// its push mode wrote. Images say nothing of their place in a chain; the backup
// XML does, and where it is gone, the checkpoint XML and the names of the files.
type pushes struct {
	*scan
	checkpoints []*item
	all         []*member
	members     map[*item]*member
	disks       map[*item][]libvirt.DomainDisk // of a checkpoint, its domain's
	uuids       map[*item]string
	bySource    map[string][]*item // checkpoints by the path of a disk
	byDomain    map[string][]*item
	nearest     map[string][]*item // to a folder, see near
	named       map[string]bool    // by folder, see namedJobs
	known       map[string]bool    // the names of checkpoints
}

// readLibvirt reads push backups of libvirt that have its documents beside them.
func (s *scan) readLibvirt() []*member {
	p := newPushes(s)
	for _, it := range s.free(func(it *item) bool { return it.backup != nil }) {
		it.used = true
		p.readJob(it)
	}
	if len(p.checkpoints) > 0 {
		p.readNamed()
		p.readNumbered()
	}
	for _, it := range p.checkpoints {
		it.used = true
	}
	p.judgeSources()
	return p.all
}

func newPushes(s *scan) *pushes {
	p := &pushes{scan: s, members: map[*item]*member{}, disks: map[*item][]libvirt.DomainDisk{}, uuids: map[*item]string{},
		bySource: map[string][]*item{}, byDomain: map[string][]*item{}, nearest: map[string][]*item{}, named: map[string]bool{}, known: map[string]bool{}}
	p.checkpoints = s.free(func(it *item) bool { return it.checkpoint != nil })
	for _, cp := range p.checkpoints {
		p.known[cp.checkpoint.ResolvedName()] = true
		p.uuids[cp] = cp.checkpoint.DomainUUID()
		p.byDomain[p.uuids[cp]] = append(p.byDomain[p.uuids[cp]], cp)
		p.disks[cp] = blockDisks(cp.checkpoint)
		for _, d := range p.disks[cp] {
			if d.Source != "" {
				p.bySource[d.Source] = append(p.bySource[d.Source], cp)
			}
		}
	}
	return p
}

func (p *pushes) addMember(m *member) {
	p.all = append(p.all, m)
	p.members[m.item] = m
}

// readJob reads one backup XML: what it names is the backup of one checkpoint, and
// stands on another.
func (p *pushes) readJob(it *item) {
	if it.backup.Mode == "pull" {
		return // the client of a pull keeps its own records
	}
	cp := p.partner(it)
	for _, d := range it.backup.Disks {
		if !d.Backup || d.Target == "" {
			continue
		}
		image := p.target(it, d.Target)
		if image == nil {
			p.problem(ProblemMissingFile, Doubt, "%s: it says that the backup of %s is %s, and that is not here", it.ID(), d.Name, path.Base(d.Target))
			continue
		}
		if image.used {
			p.problem(ProblemContradiction, Doubt, "%s: it names %s, which another document names too", it.ID(), image.ID())
			continue
		}
		p.addMember(p.jobMember(it, image, d, cp))
	}
}

func (p *pushes) jobMember(it, image *item, d libvirt.BackupDisk, cp *item) *member {
	image.raw = image.image == nil && image.broken == nil
	m := newMember(image, ToolLibvirt, "libvirt")
	m.disk, m.point = d.Name, stem(image.name)
	switch {
	case cp != nil:
		p.atCheckpoint(m, cp, d.Name)
	case p.namedJobs(it.dir):
		m.point = jobStem(it.name)
	}
	base, err := d.Base(it.backup)
	if err != nil {
		m.tell(ProblemRecord, Refuse, fmt.Sprintf("%s: %v", it.ID(), err), "")
	}
	if base == "" {
		m.setKind(Full)
		if m.image != nil && m.image.backing != "" {
			m.tell(ProblemContradiction, Refuse, fmt.Sprintf("%s calls it a full backup, and its header names a backing file (%s): it holds only what changed", it.ID(), m.image.backing), "")
		}
		return m
	}
	m.setKind(Incremental)
	if cp == nil {
		p.atBase(m, it, base, d.Name)
	}
	m.claim(p.baseClaim(it, base))
	m.claimCurrent(cp)
	m.doubtWhole("libvirt", it.ID())
	return m
}

// atBase puts an increment that was made without a checkpoint to the domain of the
// checkpoint that it is incremental to.
func (p *pushes) atBase(m *member, it *item, base, disk string) {
	for _, cp := range p.near(it) {
		if c := cp.checkpoint; c.ResolvedName() == base {
			m.domain, m.scope, m.disk = c.DomainName(), "libvirt "+p.uuids[cp], p.targetOf(cp, disk)
		}
	}
}

// baseClaim is the word of a backup XML. It names a checkpoint; where no checkpoint
// XML is there, which backup was made with that one is told by the name of another
// document alone.
func (p *pushes) baseClaim(it *item, base string) claim {
	e := Evidence{Proven, it.ID(), "says that it is incremental to " + base}
	if !p.known[base] {
		e.Grade = Implied
	}
	return claim{point: base, Evidence: e}
}

// namedJobs says that the backup XML of a folder are called after the checkpoints
// that were made with them: one names as its base what another is called.
func (p *pushes) namedJobs(dir string) bool {
	named, ok := p.named[dir]
	if !ok {
		named = p.findNamedJobs(dir)
		p.named[dir] = named
	}
	return named
}

func (p *pushes) findNamedJobs(dir string) bool {
	called := map[string]bool{}
	for _, it := range p.inDir(dir) {
		if it.backup != nil {
			called[jobStem(it.name)] = true
		}
	}
	return slices.ContainsFunc(p.inDir(dir), func(it *item) bool {
		return it.backup != nil && slices.ContainsFunc(it.backup.Disks, func(d libvirt.BackupDisk) bool {
			base, err := d.Base(it.backup)
			return err == nil && called[base]
		})
	})
}

// atCheckpoint says that a member is the backup of a checkpoint.
func (p *pushes) atCheckpoint(m *member, cp *item, disk string) {
	c := cp.checkpoint
	m.point, m.domain, m.time = c.ResolvedName(), c.DomainName(), c.Created()
	m.scope = "libvirt " + p.uuids[cp]
	m.disk = p.targetOf(cp, disk)
	if m.domain != "" {
		m.xml = cp.document()
		m.xml.Checkpoint = true
	}
}

// claimCurrent claims what the checkpoint XML says: which checkpoint was current
// when this one was made. Where a backup XML says more it is a hint.
func (m *member) claimCurrent(cp *item) {
	if cp == nil || cp.checkpoint.Parent == "" {
		return
	}
	parent := cp.checkpoint.Parent
	m.claim(claim{point: parent, hint: len(m.claims) > 0,
		Evidence: Evidence{Implied, cp.ID(), "says that " + parent + " was the checkpoint before " + m.point}})
}

// targetOf is what the domain calls a disk that is named by its target or by the
// path of its source.
func (p *pushes) targetOf(cp *item, name string) string {
	for _, d := range p.disks[cp] {
		if d.Source == name {
			return d.Target
		}
	}
	return name
}

// blockDisks are the disks of the domain that can be backed up: no CD, no floppy.
func blockDisks(c *libvirt.Checkpoint) []libvirt.DomainDisk {
	return slices.DeleteFunc(slices.Clone(c.DomainDisks()), func(d libvirt.DomainDisk) bool { return d.Device != "" && d.Device != "disk" })
}

// target is the image that a backup XML names: as the user says that it moved, or
// by its name beside the document, or by its name anywhere, if one there is of that
// name in a folder that has no documents of its own.
func (p *pushes) target(it *item, name string) *item {
	if found := p.resolve(it.dir, name); found != nil {
		return found
	}
	base := path.Base(name)
	if found := p.sibling(it, base); found != nil {
		return found
	}
	var all []*item
	for _, other := range p.items {
		if other.name == base && other.holdsDisk() && !slices.ContainsFunc(p.inDir(other.dir), isDocument) {
			all = append(all, other)
		}
	}
	if len(all) == 1 {
		return all[0]
	}
	return nil
}

func isDocument(it *item) bool { return it.checkpoint != nil || it.backup != nil }

// near are the checkpoints of the domain that an item may belong to: one whose disk
// its header names, or else the one whose documents lie nearest. Where several
// domains are as near there are none.
func (p *pushes) near(it *item) []*item {
	if it.image != nil {
		if named := p.bySource[it.image.backing]; len(named) > 0 && p.oneDomain(named) {
			return p.byDomain[p.uuids[named[0]]]
		}
	}
	found, ok := p.nearest[it.dir]
	if !ok {
		found = p.nearestTo(it.dir)
		p.nearest[it.dir] = found
	}
	return found
}

func (p *pushes) nearestTo(dir string) []*item {
	var all []*item
	best := 0
	for _, cp := range p.checkpoints {
		d := distance(dir, cp.dir)
		if len(all) == 0 || d < best {
			all, best = nil, d
		}
		if d == best {
			all = append(all, cp)
		}
	}
	if len(all) == 0 || !p.oneDomain(all) {
		return nil
	}
	return p.byDomain[p.uuids[all[0]]]
}

func (p *pushes) oneDomain(all []*item) bool {
	return !slices.ContainsFunc(all, func(cp *item) bool { return p.uuids[cp] != p.uuids[all[0]] })
}

// distance is how far two folders are from each other: 0 the same, 1 one below the
// other, 2 side by side, 3 elsewhere.
func distance(a, b string) int {
	below := func(a, b string) bool { return b == "." || strings.HasPrefix(a, b+"/") }
	switch {
	case a == b:
		return 0
	case below(a, b), below(b, a):
		return 1
	case path.Dir(a) == path.Dir(b):
		return 2
	}
	return 3
}

// partner is the checkpoint that was made together with a backup: the documents
// have the same name but for the words for what they are, or the checkpoint has
// the name of the document, or there is but one of each in a folder.
func (p *pushes) partner(it *item) *item {
	name := documentStem(it.name)
	var alone []*item
	for _, cp := range p.checkpoints {
		if cp.dir == it.dir {
			alone = append(alone, cp)
			if documentStem(cp.name) == name {
				return cp
			}
		}
	}
	for _, cp := range p.near(it) {
		if documentStem(cp.checkpoint.ResolvedName()) == name {
			return cp
		}
	}
	backups := slices.DeleteFunc(slices.Clone(p.inDir(it.dir)), func(o *item) bool { return o.backup == nil })
	if len(alone) == 1 && len(backups) == 1 {
		return alone[0]
	}
	return nil
}

// documentStem is the name of a document without its extension and the words for
// its kind.
func documentStem(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, ".xml"))
	for _, word := range []string{"domainbackup", "domaincheckpoint", "backup", "checkpoint"} {
		name = strings.ReplaceAll(name, word, "")
	}
	return strings.Trim(name, "-_. ")
}

var jobWords = regexp.MustCompile(`(?i)[-_. ]*(?:domain)?(?:backup)?\.xml$`)

// jobStem is the name of a backup XML without its extension and the word for what
// it is, as it is written: names of checkpoints have capitals.
func jobStem(name string) string { return jobWords.ReplaceAllString(name, "") }

func stem(name string) string { return strings.TrimSuffix(name, path.Ext(name)) }

// readNamed takes images whose name, or whose folder's, holds the name of a
// checkpoint.
func (p *pushes) readNamed() {
	for _, it := range p.free(isBackupImage) {
		cp := p.namesCheckpoint(it)
		if cp == nil {
			continue
		}
		disk, ok := p.diskOf(it, cp)
		if !ok {
			continue
		}
		m := newMember(it, ToolLibvirt, "libvirt")
		p.atCheckpoint(m, cp, disk)
		m.setKind(kindByBacking(it))
		if cp.checkpoint.Parent != "" && m.kind == Full {
			m.setKind(Incremental)
		}
		if m.kind == Incremental {
			m.claimCurrent(cp)
			m.doubtWhole("libvirt", cp.ID())
		}
		p.addMember(m)
	}
}

// isBackupImage says that an item may be what a push wrote: such an image holds no
// bitmaps, the guest's own does.
func isBackupImage(it *item) bool {
	return it.stream == nil && it.holdsDisk() && (it.image == nil || len(it.image.bitmaps) == 0)
}

// namesCheckpoint is the checkpoint with the longest name that stands in the name
// of an image, or of its folder, as a word of its own.
func (p *pushes) namesCheckpoint(it *item) *item {
	var best *item
	near := p.near(it)
	for _, where := range []string{it.name, path.Base(it.dir)} {
		for _, cp := range near {
			name := cp.checkpoint.ResolvedName()
			if hasWord(where, name) && (best == nil || len(name) > len(best.checkpoint.ResolvedName())) {
				best = cp
			}
		}
		if best != nil {
			return best
		}
	}
	return nil
}

// hasWord says that word stands in s, and no letter or digit beside it.
func hasWord(s, word string) bool {
	for at := 0; word != ""; {
		i := strings.Index(s[at:], word)
		if i < 0 {
			return false
		}
		i += at
		if !wordByte(s, i-1) && !wordByte(s, i+len(word)) {
			return true
		}
		at = i + 1
	}
	return false
}

func wordByte(s string, i int) bool {
	return i >= 0 && i < len(s) && (isDigit(s[i]) || s[i]|0x20 >= 'a' && s[i]|0x20 <= 'z')
}

// diskOf is the disk of the domain that an image belongs to: its header names the
// disk's source, or its name holds the target, or the domain has but one.
func (p *pushes) diskOf(it, cp *item) (string, bool) {
	disks := p.disks[cp]
	for _, d := range disks {
		if it.image != nil && it.image.backing != "" && it.image.backing == d.Source {
			return d.Target, true
		}
	}
	for _, d := range disks {
		if hasWord(it.name, d.Target) {
			return d.Target, true
		}
	}
	if len(disks) == 1 {
		return disks[0].Target, true
	}
	return "", false
}

// readNumbered takes what is left, where a disk has as many images as there are
// checkpoints: they are assumed to follow each other as their names do. Images
// that documents name must stand where their checkpoints do.
func (p *pushes) readNumbered() {
	for _, uuid := range slices.Sorted(maps.Keys(p.byDomain)) {
		line := inLine(p.byDomain[uuid])
		if line == nil {
			continue
		}
		for _, found := range p.imagesByDisk(line[len(line)-1]) {
			slices.SortStableFunc(found.items, compareLinks)
			if len(found.items) == len(line) && p.fits(found.items, line) {
				p.number(found, line)
			}
		}
	}
}

// fits says that those of the images that are members already stand at their
// checkpoints.
func (p *pushes) fits(items, line []*item) bool {
	for i, it := range items {
		if m := p.members[it]; m != nil && m.point != line[i].checkpoint.ResolvedName() {
			return false
		}
	}
	return true
}

// number makes members of those images that are none yet.
func (p *pushes) number(found diskItems, line []*item) {
	for i, it := range found.items {
		if it.used {
			continue
		}
		m := newMember(it, ToolLibvirt, "libvirt")
		p.atCheckpoint(m, line[i], found.disk)
		m.setKind(Full)
		if i > 0 {
			m.setKind(Incremental)
			m.claim(claim{point: line[i-1].checkpoint.ResolvedName(), Evidence: Evidence{Assumed, m.ID(),
				fmt.Sprintf("is number %d of %d images in the order of their names and there are as many checkpoints", i+1, len(line))}})
			m.doubtWhole("libvirt", "the order of names")
		}
		p.addMember(m)
	}
}

// inLine is checkpoints in their order, where each but the first has the one before
// it as its parent; nil where not.
func inLine(all []*item) []*item {
	next := map[string]*item{}
	for _, cp := range all {
		if next[cp.checkpoint.Parent] != nil {
			return nil
		}
		next[cp.checkpoint.Parent] = cp
	}
	var line []*item
	for at := next[""]; at != nil && len(line) < len(all); at = next[at.checkpoint.ResolvedName()] {
		line = append(line, at)
	}
	if len(line) != len(all) {
		return nil
	}
	return line
}

type diskItems struct {
	disk  string
	items []*item
}

// imagesByDisk are the images, by the disk that they seem to belong to.
func (p *pushes) imagesByDisk(cp *item) []diskItems {
	var all []diskItems
	for _, it := range p.items {
		near := p.near(it)
		if !isBackupImage(it) || len(near) == 0 || p.uuids[near[0]] != p.uuids[cp] {
			continue
		}
		disk, ok := p.diskOf(it, cp)
		if !ok {
			disk, ok = p.diskByOthers(it, cp)
		}
		if !ok {
			continue
		}
		i := slices.IndexFunc(all, func(d diskItems) bool { return d.disk == disk })
		if i < 0 {
			i = len(all)
			all = append(all, diskItems{disk: disk})
		}
		all[i].items = append(all[i].items, it)
	}
	return all
}

// diskByOthers is the disk of an image that names nothing: that of the images
// beside it whose names begin alike, as full.qcow2 and inc1.qcow2 do.
func (p *pushes) diskByOthers(it, cp *item) (string, bool) {
	prefix, _ := splitName(it.name)
	for _, other := range p.inDir(it.dir) {
		if at, _ := splitName(other.name); other == it || at != prefix || !isBackupImage(other) {
			continue
		}
		if disk, ok := p.diskOf(other, cp); ok {
			return disk, true
		}
	}
	return "", false
}

// judgeSources finds images of another disk: libvirt writes the path of the
// guest's disk into each increment, and the checkpoint XML names the same.
func (p *pushes) judgeSources() {
	mine := map[*item]bool{}
	for _, m := range p.all {
		mine[m.item] = true
	}
	for _, m := range p.all {
		if m.xml == nil || m.image == nil || m.image.backing == "" {
			continue
		}
		if below := p.resolve(m.dir, backingPath(m.image.backing)); below != nil && mine[below] {
			m.tell(ProblemFlatRebase, Note, fmt.Sprintf("its header names the backing file %s, as after a rebase (of a whole chain onto the full backup, where all name the same): the records say on what it stands, and count", m.image.backing), "")
			continue
		}
		p.judgeSource(m)
	}
}

func (p *pushes) judgeSource(m *member) {
	cp := p.documentOf(m)
	if cp == nil {
		return
	}
	for _, d := range p.disks[cp] {
		if d.Target == m.disk && d.Source != "" && d.Source != m.image.backing {
			m.tell(ProblemForeign, Refuse, fmt.Sprintf("its header names the disk %s, and %s says that %s of %s was %s then: it belongs to another disk or domain",
				m.image.backing, cp.ID(), m.disk, m.domain, d.Source), "find the right file")
		}
	}
}

func (p *pushes) documentOf(m *member) *item {
	for _, cp := range p.byDomain[strings.TrimPrefix(m.scope, "libvirt ")] {
		if cp.path == m.xml.Path && cp.entry.member == m.xml.Member {
			return cp
		}
	}
	return nil
}
