package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// The verdicts.
const (
	verdictAccept = "accept"
	verdictRefuse = "refuse"
)

// An inspectReport is what there is to say of one image.
type inspectReport struct {
	Filename    string `json:"filename"`
	Format      string `json:"format"`
	Verdict     string `json:"verdict,omitempty"` // only with --policy
	FileSize    int64  `json:"file-size"`
	VirtualSize *int64 `json:"virtual-size,omitempty"`
	// StoredSize is how many bytes of the guest's disk are said to be stored in
	// the file; nil where that was not looked at.
	StoredSize *int64           `json:"stored-size,omitempty"`
	Names      []inspectName    `json:"names,omitempty"`
	Findings   []inspectFinding `json:"findings,omitempty"`
}

// An inspectName is a file that the image names.
type inspectName struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	NameHex string `json:"name-hex,omitempty"`
	Format  string `json:"format,omitempty"`
}

// An inspectFinding is a rule that something in the image met.
type inspectFinding struct {
	Rule    string   `json:"rule"`
	Refuse  bool     `json:"refuse"` // else it is only worth knowing
	CVE     []string `json:"cve,omitempty"`
	Message string   `json:"message"` // escaped
	Count   int      `json:"count"`   // how often; the message is about the first
}

// add notes a finding; a rule that was met before is only counted.
func (r *inspectReport) add(rule inspectRule, format string, args ...any) {
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Rule == rule.id && f.Refuse == rule.refuse {
			f.Count++
			f.CVE = unite(f.CVE, rule.cves)
			return
		}
	}
	r.Findings = append(r.Findings, inspectFinding{Rule: rule.id, Refuse: rule.refuse, CVE: rule.cves,
		Message: escapeText(fmt.Sprintf(format, args...)), Count: 1})
}

// unite adds what is missing in a.
func unite(a, b []string) []string {
	all := append([]string(nil), a...)
	for _, s := range b {
		if !strings.Contains(strings.Join(all, " "), s) {
			all = append(all, s)
		}
	}
	return all
}

// finish gives the verdict, if one was asked for.
func (r *inspectReport) finish(judge bool) {
	if !judge {
		return
	}
	r.Verdict = verdictAccept
	for _, f := range r.Findings {
		if f.Refuse {
			r.Verdict = verdictRefuse
		}
	}
}

// print prints a report for people.
func (r *inspectReport) print(w io.Writer) {
	out := bufio.NewWriter(w)
	defer out.Flush()
	line := func(key, format string, args ...any) { fmt.Fprintf(out, key+": "+format+"\n", args...) }
	line("image", "%s", escapeName(r.Filename))
	if r.Verdict != "" {
		line("verdict", "%s", r.Verdict)
	}
	line("file format", "%s", r.Format)
	line("file size", "%s (%d bytes)", formatSize(r.FileSize), r.FileSize)
	if r.VirtualSize != nil {
		line("virtual size", "%s (%d bytes)", formatSize(*r.VirtualSize), *r.VirtualSize)
	}
	if r.StoredSize != nil {
		line("guest data stored", "%s (%d bytes)", formatSize(*r.StoredSize), *r.StoredSize)
	}
	for _, n := range r.Names {
		format := ""
		if n.Format != "" {
			format = " (format " + escapeName(n.Format) + ")"
		}
		line("names a "+n.Kind, "%s%s", quote(escapeName(n.Name)), format)
	}
	for _, f := range r.Findings {
		f.print(line)
	}
}

func (f *inspectFinding) print(line func(key, format string, args ...any)) {
	key, more := "note", ""
	if f.Refuse {
		key = "refuse"
	}
	if f.Count > 1 {
		more = fmt.Sprintf(" (%d times)", f.Count)
	}
	if len(f.CVE) > 0 {
		more += " [" + strings.Join(f.CVE, ", ") + "]"
	}
	line(key, "%s: %s%s", f.Rule, f.Message, more)
}
