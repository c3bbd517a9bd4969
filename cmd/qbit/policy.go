package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/qcow2"
)

// A refPolicy is what the user said about the files that images name. The zero
// value opens none: an image is a stranger, and a name in it can be any path.
type refPolicy struct {
	allow []string // folders, --allow-refs
	refs  []string // NAME=PATH, --ref
	trust bool
}

func (p *refPolicy) register(fs *pflag.FlagSet) {
	fs.StringArrayVar(&p.allow, "allow-refs", nil, "open files that an image names if they lie below the folder `DIR`; may be repeated")
	fs.StringArrayVar(&p.refs, "ref", nil, "where an image names the file NAME, open PATH (or raw:PATH) in its place, as `NAME=PATH`; may be repeated")
	fs.BoolVar(&p.trust, "trust", false, "open every plain path that an image names")
}

// check refuses a --ref that cannot be meant.
func (p *refPolicy) check() error {
	for _, ref := range p.refs {
		if name, path, ok := strings.Cut(ref, "="); !ok || name == "" || path == "" {
			return usagef("--ref %q: it is NAME=PATH, with NAME exactly as the image has it", ref)
		}
	}
	return nil
}

// A refTarget is the file that stands for a name in an image.
type refTarget struct {
	path string
	raw  bool // the user said that it is raw
	// root and real are set where the path is allowed by --allow-refs: the
	// folder, and the path below it, both without symbolic links.
	root, real string
}

// A refusedError is a file that an image names and that the user did not allow.
type refusedError struct {
	ref qcow2.Ref
	by  string // the image that names it
	why string
}

func (e *refusedError) Error() string {
	format := "no format given"
	if e.ref.Format != "" {
		format = "format " + escapeName(e.ref.Format)
	}
	name := escapeName(e.ref.Name)
	return fmt.Sprintf("%s: its %s %s (%s) was not opened: %s", escapeName(e.by), e.ref.Kind, quote(name), format, e.why)
}

func quote(escaped string) string { return `"` + escaped + `"` }

// resolve finds the file that stands for ref, which the image by (a path) names.
func (p *refPolicy) resolve(ref qcow2.Ref, by string) (refTarget, error) {
	if target, ok := p.mapped(ref.Name); ok {
		return target, nil
	}
	refuse := func(why string) (refTarget, error) {
		return refTarget{}, &refusedError{ref, by, why}
	}
	mapHint := fmt.Sprintf("--ref '%s=PATH'", escapeName(ref.Name))
	name, err := plainPath(ref.Name, by)
	if err != nil {
		return refuse(err.Error() + "; give a file in its place with " + mapHint)
	}
	switch {
	case p.trust:
		return refTarget{path: name}, nil
	case len(p.allow) == 0:
		return refuse(fmt.Sprintf("allow it with --allow-refs=DIR for a folder above %s, with %s, or with --trust",
			quote(escapeName(name)), mapHint))
	}
	return p.below(ref, by, name)
}

// mapped is the PATH of --ref NAME=PATH. Both may hold '=': the name that the
// image has decides where it ends.
func (p *refPolicy) mapped(name string) (refTarget, bool) {
	for _, ref := range p.refs {
		if path, ok := strings.CutPrefix(ref, name+"="); ok && path != "" {
			path, raw := strings.CutPrefix(path, "raw:")
			return refTarget{path: path, raw: raw}, true
		}
	}
	return refTarget{}, false
}

// below resolves all symbolic links and wants the result in an allowed folder.
// It is opened through that folder afterwards (openBelow), so that nothing that
// changes in between leads out of it.
func (p *refPolicy) below(ref qcow2.Ref, by, name string) (refTarget, error) {
	real, err := realPath(name)
	if err != nil {
		return refTarget{}, fmt.Errorf("%s: its %s: %w", escapeName(by), ref.Kind, err)
	}
	for _, dir := range p.allow {
		root, err := realPath(dir)
		if err != nil {
			return refTarget{}, usagef("--allow-refs: %w", err)
		}
		if rel, err := filepath.Rel(root, real); err == nil && filepath.IsLocal(rel) {
			return refTarget{path: name, root: root, real: real}, nil
		}
	}
	return refTarget{}, &refusedError{ref, by, fmt.Sprintf("it is %s, which is not below %s",
		quote(escapeName(real)), strings.Join(p.allow, " or "))}
}

// realPath is the absolute path without symbolic links. The path is not cleaned
// before they are resolved: link/.. is the folder above the link's target.
func realPath(path string) (string, error) {
	if !filepath.IsAbs(path) {
		wd, err := os.Getwd()
		if err != nil {
			return "", err
		}
		path = wd + "/" + path
	}
	return filepath.EvalSymlinks(path)
}

// plainPath is the path that QEMU opens for a name that the image by has: as it
// stands where it is absolute or says file:, else relative to the image's folder.
func plainPath(name, by string) (string, error) {
	if path, ok := strings.CutPrefix(name, "file:"); ok {
		if path == "" {
			return "", errors.New("it is empty")
		}
		return path, nil
	}
	if protocol, ok := protocolOf(name); ok {
		return "", fmt.Errorf("it is no plain path but uses the protocol %q", protocol)
	}
	return combinePath(by, name), nil
}

// protocolOf is what stands before a colon in the first component of a path:
// QEMU takes it for the name of a protocol.
func protocolOf(name string) (string, bool) {
	i := strings.IndexAny(name, ":/")
	if i < 0 || name[i] != ':' {
		return "", false
	}
	return name[:i], true
}

// combinePath is name as seen from the folder of the image by. Nothing is cleaned.
func combinePath(by, name string) string {
	if strings.HasPrefix(name, "/") {
		return name
	}
	return by[:strings.LastIndexByte(by, '/')+1] + name
}

// fullRefName is what qemu-img calls the full backing filename.
func fullRefName(by, name string) string {
	if _, ok := protocolOf(name); ok {
		return name
	}
	return combinePath(by, name)
}
