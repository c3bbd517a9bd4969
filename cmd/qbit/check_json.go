package main

import (
	"context"
	"errors"

	"github.com/qbitkit/qbit/qcow2"
)

// A checkReport is the JSON of a check: the keys of qemu-img check, and findings. It
// is written while the check runs: the fields behind the findings are filled by it.
type checkReport struct {
	Findings    jsonList `json:"findings"`
	ImageEnd    *int64   `json:"image-end-offset,omitempty"`
	Total       *int64   `json:"total-clusters,omitempty"`
	CheckErrors int64    `json:"check-errors"`
	Corruptions int64    `json:"corruptions,omitempty"`
	Leaks       int64    `json:"leaks,omitempty"`
	Notices     int64    `json:"notices,omitempty"`
	Incomplete  bool     `json:"incomplete,omitempty"`
	Passes      int64    `json:"passes,omitempty"`
	Allocated   int64    `json:"allocated-clusters,omitempty"`
	Fragmented  int64    `json:"fragmented-clusters,omitempty"`
	Compressed  int64    `json:"compressed-clusters,omitempty"`
	Filename    string   `json:"filename"`
	Format      string   `json:"format"`
}

func (*checkReport) streamed() {}

// A jsonFinding is an element of findings.
type jsonFinding struct {
	Kind      string     `json:"kind"`
	Severity  string     `json:"severity"`
	Structure string     `json:"structure"`
	Field     string     `json:"field,omitempty"`
	Host      uint64     `json:"host-offset"`
	Cluster   *uint64    `json:"cluster-offset,omitempty"`
	Clusters  int64      `json:"clusters,omitempty"`
	Snapshot  string     `json:"snapshot,omitempty"`
	Guest     *jsonGuest `json:"guest,omitempty"`
	Found     string     `json:"found"`
	Wanted    string     `json:"wanted"`
	Means     string     `json:"means"`
	Mend      string     `json:"mend,omitempty"`
}

type jsonGuest struct {
	Start  int64 `json:"start"`
	Length int64 `json:"length"`
}

// runJSON writes one object, or a list of them for several images.
func (k *checkCommand) runJSON(ctx context.Context, c *console, args []string) error {
	var problems []error
	s := newJSONStream(c.out)
	if len(args) == 1 {
		job, err := k.prepare(c, args[0])
		if err != nil {
			return err
		}
		s.value(k.report(ctx, c, job, &problems), "")
		return errors.Join(append(problems, s.end())...)
	}
	s.value(jsonList(func(yield func(any) bool) {
		for _, arg := range args {
			job, err := k.prepare(c, arg)
			if err != nil {
				problems = append(problems, err)
				continue
			}
			if !yield(k.report(ctx, c, job, &problems)) || ctx.Err() != nil {
				return
			}
		}
	}), "")
	return errors.Join(append(problems, s.end())...)
}

// report is the report of one image, which checks it while it is written. How the
// check went goes to problems.
func (k *checkCommand) report(ctx context.Context, c *console, job *checkJob, problems *[]error) *checkReport {
	r := &checkReport{Filename: job.arg, Format: formatQcow2}
	r.Findings = func(yield func(any) bool) {
		*problems = append(*problems, k.check(ctx, c, job, &jsonSink{r: r, path: job.arg, yield: yield}))
	}
	return r
}

// A jsonSink fills a checkReport.
type jsonSink struct {
	r     *checkReport
	path  string
	yield func(any) bool
}

var errNotWritten = silent{errors.New("the result could not be written")}

func (s *jsonSink) start(*meter) {}

func (s *jsonSink) found(f qcow2.Finding) error {
	if !s.yield(newJSONFinding(f, s.path)) {
		return errNotWritten
	}
	return nil
}

func newJSONFinding(f qcow2.Finding, path string) jsonFinding {
	means, _ := qcow2.Explain(f.Kind)
	j := jsonFinding{Kind: string(f.Kind), Severity: string(f.Severity), Structure: f.Structure, Field: f.Field,
		Host: uint64(f.Host), Clusters: f.Clusters, Snapshot: f.Snapshot, Found: f.Found, Wanted: f.Wanted,
		Means: means, Mend: mendCommand(f.Kind, path)}
	if f.Clusters > 0 || f.Cluster > 0 {
		cluster := uint64(f.Cluster)
		j.Cluster = &cluster
	}
	if f.GuestLen > 0 {
		j.Guest = &jsonGuest{f.GuestOff, f.GuestLen}
	}
	return j
}

func (s *jsonSink) end(img *qcow2.Image, res *qcow2.CheckResult) error {
	r := s.r
	r.CheckErrors, r.Corruptions, r.Leaks, r.Notices = res.CheckErrors, res.Corruptions, res.Leaks, res.Notices
	r.Incomplete, r.Passes = res.Incomplete, res.Passes
	if img != nil {
		r.ImageEnd, r.Total = &res.ImageEnd, &res.TotalClusters
		r.Allocated, r.Fragmented, r.Compressed = res.AllocatedClusters, res.FragmentedClusters, res.CompressedClusters
	}
	return nil
}
