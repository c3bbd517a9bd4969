package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/reconstruct/checkpoint"
)

func checkpointVerb() verb {
	return verb{
		name:  "checkpoint",
		args:  "OPERATION [NAME…]",
		short: "make, list, delete and merge libvirt's checkpoints of a domain that is off",
		long:  checkpointHelp,
		new:   func() command { return new(checkpointCommand) },
	}
}

const checkpointHelp = `A checkpoint is a moment from which on it is recorded what changes: a bitmap in the
image of every disk, and an XML document as libvirt keeps it. qbit does for a domain
that is off what libvirt does for one that runs.

The OPERATIONs are
  create [NAME]     make a checkpoint of all disks that can be written to, and print
                    its document, ready for virsh checkpoint-create --redefine. Its
                    name is the time in seconds where none is given; its parent is
                    the checkpoint that is current. All disks get their bitmap, or none
  delete NAME…      remove checkpoints; their children get the parent as parent
  list              list the checkpoints, and the bitmaps that have no document
  tree              print the tree, with state and dirty size on every disk
  show NAME         print a checkpoint's document
  redefine FILE…    take documents into the folder, if the images have what they say
  merge FIRST..LAST make one checkpoint of several: it stands for the moment of FIRST,
                    and all others down to LAST are given up

The disks are those of a domain, as virsh dumpxml prints it (--domain), or images that
you name. --disk vda=PATH also says where a disk of the domain is, if it is not where
the domain says. Backing files that images name are opened only if you allow them, with
--allow-refs, --ref or --trust.

The documents are kept in a folder, NAME.xml each, as libvirt and virtnbdbackup keep
theirs: --checkpoints DIR. Without it that is web.checkpoints for --domain web.xml,
and disk.qcow2.checkpoints for --disk vda=disk.qcow2 (the first that is named). libvirt
does not notice what is done in its own folder: hand it the documents with virsh
checkpoint-create --redefine, and take those that are gone from it with virsh
checkpoint-delete --metadata.

list and tree compare the documents with the bitmaps that are really in the images,
and say what can be done about each that does not fit. docs/checkpoints.md says more.`

// checkpointCommand is `qbit checkpoint`.
type checkpointCommand struct {
	outputFlag
	flags *pflag.FlagSet

	domainFile string
	disks      []string // --disk
	folder     string   // --checkpoints
	share      bool
	policy     refPolicy
	limits     limitsFlag

	description, xml string    // create
	granularity      sizeValue // -g; 0: not given

	children, childrenOnly, metadata bool
	design                           string
	into                             string
	dry                              bool

	tree, parent, roots, leaves, size, check bool
	noDomain                                 bool
	fromImages, force                        bool
}

func (k *checkpointCommand) setFlags(fs *pflag.FlagSet) {
	k.flags = fs
	fs.StringVar(&k.domainFile, "domain", "", "the domain's XML, as virsh dumpxml prints it, is in `FILE`")
	fs.StringArrayVar(&k.disks, "disk", nil, "a disk, as `NAME=PATH`: without --domain an image; with it the\nplace of that disk of the domain. With --domain also NAME\nalone: of these disks only. May be repeated")
	fs.StringVar(&k.folder, "checkpoints", "", "the documents are in the folder `DIR`")
	fs.StringVar(&k.description, "description", "", "create: what to say of it, any `TEXT`")
	fs.StringVar(&k.xml, "xml", "", "create: make what `FILE` says, a <domaincheckpoint>")
	fs.VarP(&k.granularity, "granularity", "g", "create: the `SIZE` of what one bit stands for: a power of two,\n512 to 2G (default: the cluster size, but 4k to 64k)")
	fs.BoolVar(&k.children, "children", false, "delete: with all checkpoints that descend from it")
	fs.BoolVar(&k.childrenOnly, "children-only", false, "delete: those alone")
	fs.BoolVar(&k.metadata, "metadata", false, "delete: the document alone; the bitmaps stay")
	k.design = string(checkpoint.DesignAuto)
	addChoice(fs, &k.design, "design", "", "delete: how the bitmaps were made. today: each records by\nitself; older: only the newest does, and what is deleted is\nmerged into its parent; auto: the bitmaps tell. `DESIGN` is one of these",
		string(checkpoint.DesignAuto), string(checkpoint.DesignToday), string(checkpoint.DesignOlder))
	fs.StringVar(&k.into, "into", "", "merge: the `NAME` of the checkpoint that is left (default: FIRST)")
	fs.BoolVarP(&k.dry, "dry-run", "n", false, "create, delete, merge: say what would change, and change nothing")
	fs.BoolVar(&k.tree, "tree", false, "list: print libvirt's tree")
	fs.BoolVar(&k.parent, "parent", false, "list: with the parent of each")
	fs.BoolVar(&k.roots, "roots", false, "list: those without a parent")
	fs.BoolVar(&k.leaves, "leaves", false, "list: those without children")
	fs.BoolVar(&k.size, "size", false, "list, show: with how much changed since")
	fs.BoolVar(&k.check, "check", false, "list, tree: read all bitmaps, and end with status 2 where\nsomething does not fit")
	fs.BoolVar(&k.noDomain, "no-domain", false, "create, show: leave the domain out of what is printed")
	fs.BoolVar(&k.fromImages, "from-images", false, "redefine: make documents of left over bitmaps")
	fs.BoolVar(&k.force, "force", false, "redefine: take documents also where the images do not have what\nthey say")
	k.outputFlag.register(fs)
	fs.BoolVarP(&k.share, "force-share", "U", false, "list, tree, show: read images that another process is writing;\nwhat you get may be torn")
	k.policy.register(fs)
	k.limits.register(fs)
}

// A checkpointOp is a row of the table of operations.
type checkpointOp struct {
	name     string
	min, max int // how many arguments it takes; max -1: any number
	takes    string
	// flags are those that it takes beside the ones that all take.
	flags string
	do    func(*checkpointCommand, context.Context, *console, []string) error
}

func checkpointOps() []checkpointOp {
	return []checkpointOp{
		{"create", 0, 1, "the NAME of the new checkpoint, or none", "description xml granularity no-domain dry-run", (*checkpointCommand).create},
		{"delete", 1, -1, "the NAMEs of checkpoints", "children children-only metadata design dry-run", (*checkpointCommand).delete},
		{"list", 0, 0, "no argument", "tree parent roots leaves size check output force-share", (*checkpointCommand).list},
		{"tree", 0, 0, "no argument", "check output force-share", (*checkpointCommand).printTree},
		{"show", 1, 1, "the NAME of a checkpoint", "no-domain size force-share", (*checkpointCommand).show},
		{"redefine", 0, -1, "FILEs with documents, or --from-images", "from-images force dry-run", (*checkpointCommand).redefine},
		{"merge", 1, 1, "FIRST..LAST", "into dry-run", (*checkpointCommand).merge},
	}
}

// commonFlags are those that every operation takes.
const commonFlags = "domain disk checkpoints allow-refs ref trust limit help"

func (k *checkpointCommand) run(ctx context.Context, c *console, args []string) error {
	if len(args) == 0 {
		return usagef("checkpoint takes an operation: %s", operationNames())
	}
	ops := checkpointOps()
	i := slices.IndexFunc(ops, func(op checkpointOp) bool { return op.name == args[0] })
	if i < 0 {
		return usagef("checkpoint: there is no operation %q; there are %s", args[0], operationNames())
	}
	if err := k.checkFlags(ops[i], args[1:]); err != nil {
		return err
	}
	return ops[i].do(k, ctx, c, args[1:])
}

func operationNames() string {
	var names []string
	for _, op := range checkpointOps() {
		names = append(names, op.name)
	}
	return strings.Join(names, ", ")
}

// checkFlags finds what does not go together.
func (k *checkpointCommand) checkFlags(op checkpointOp, args []string) error {
	if len(args) < op.min || op.max >= 0 && len(args) > op.max {
		return usagef("checkpoint %s takes %s", op.name, op.takes)
	}
	taken := strings.Fields(commonFlags + " " + op.flags)
	var wrong error
	k.flags.Visit(func(f *pflag.Flag) {
		if !slices.Contains(taken, f.Name) {
			wrong = usagef("checkpoint %s does not take --%s", op.name, f.Name)
		}
	})
	switch {
	case wrong != nil:
		return wrong
	case k.domainFile == "" && len(k.disks) == 0:
		return usagef("checkpoint %s: say which disks: --domain FILE, or --disk vda=PATH", op.name)
	case k.granularity != 0:
		if err := checkGranularity(k.granularity); err != nil {
			return err
		}
	case k.given("granularity"):
		return usagef("-g: it is a power of two from 512 to 2G")
	}
	return k.policy.check()
}

// given says that a flag stands on the command line, also with an empty value.
func (k *checkpointCommand) given(flag string) bool { return k.flags.Changed(flag) }
