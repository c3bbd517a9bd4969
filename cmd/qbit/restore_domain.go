package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
	"github.com/qbitkit/qbit/reconstruct/plan"
)

// maxDomainXML bounds the description of a domain, in bytes.
const maxDomainXML = 16 << 20

// writeDomain writes the description of the domain as of the point that was
// restored, with the restored files as its disks.
func (r *restoreCommand) writeDomain(c *console, s *set, routes []diskRoute) error {
	domain, from, err := s.domainOf(routes)
	if err != nil {
		return err
	}
	if err := r.placeDisks(domain, routes, from); err != nil {
		return err
	}
	for _, d := range domain.Disks {
		if d.Source != "" && (d.Device == "" || d.Device == "disk") && !slices.ContainsFunc(routes, func(r diskRoute) bool { return r.disk.Name == d.Target }) {
			c.warn("%s: its disk %s was not restored, and is left as %s", r.from.domainXML, d.Target, d.Source)
		}
	}
	return writeNew(r.from.domainXML, domain.Append(), r.target.force)
}

// diskPath is where a disk was restored to.
func (r *restoreCommand) diskPath(d diskRoute) string {
	if r.target.onto != "" {
		return r.target.onto
	}
	return d.out
}

// domainOf is the description of the domain that the disks belong to.
func (s *set) domainOf(routes []diskRoute) (*libvirt.Domain, string, error) {
	var doc *plan.Document
	for _, d := range routes {
		if d.disk.Domain != routes[0].disk.Domain {
			return nil, "", usagef("--domain-xml: the disks belong to several domains; name those of one with --disk")
		}
		if doc == nil {
			doc = d.point().DomainXML
		}
	}
	if doc == nil {
		return nil, "", fmt.Errorf("%s: the set has no description of the domain at point %s", escapeName(s.path), escapeName(routes[0].point().Point))
	}
	b, err := s.read(doc)
	if err != nil {
		return nil, "", err
	}
	if !doc.Checkpoint {
		domain, err := libvirt.ParseDomain(b)
		return domain, doc.Path, err
	}
	cp, err := libvirt.ParseCheckpoint(b)
	if err != nil {
		return nil, "", err
	}
	return cp.Domain(), doc.Path, nil
}

// read reads a document of the set whole.
func (s *set) read(doc *plan.Document) ([]byte, error) {
	f, err := s.open(plan.Source{Path: doc.Path, Member: doc.Member})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.size > maxDomainXML {
		return nil, fmt.Errorf("%s: the document has %d bytes; more than %d are not read", escapeName(f.path), f.size, maxDomainXML)
	}
	return io.ReadAll(io.NewSectionReader(f, 0, f.size))
}

// writeNew writes a small file under a temporary name and renames it.
func writeNew(path string, content []byte, overwrite bool) error {
	out, err := reconstruct.CreateOutput(path, &reconstruct.OutputOptions{Overwrite: overwrite})
	if err != nil {
		return plainError(path, err)
	}
	if _, err := out.Storage().WriteAt(content, 0); err != nil {
		out.Abort()
		return plainError(path, err)
	}
	return out.Commit()
}
