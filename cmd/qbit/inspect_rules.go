package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/qbitkit/qbit/qcow2"
)

// An inspectRule is a rule of the policy; docs/hostile.md says why for each.
type inspectRule struct {
	id     string
	refuse bool
	cves   []string
}

// note is the rule where the user accepts what it is about.
func (r inspectRule) note() inspectRule {
	r.refuse = false
	return r
}

// The rules. Those about names are in the order of their weight.
var (
	ruleDataFile   = inspectRule{"data-file", true, []string{"CVE-2024-32498", "CVE-2024-4467"}}
	ruleBacking    = inspectRule{"backing-file", true, []string{"CVE-2026-27211"}}
	ruleJSONName   = inspectRule{"json-name", true, []string{"CVE-2024-4467"}}
	ruleProtocol   = inspectRule{"protocol-name", true, nil}
	ruleDevice     = inspectRule{"device-path", true, []string{"CVE-2026-27211"}}
	ruleAbsolute   = inspectRule{"absolute-path", true, []string{"CVE-2026-27211"}}
	ruleParent     = inspectRule{"parent-path", true, nil}
	ruleControl    = inspectRule{"control-characters", true, nil}
	ruleNoName     = inspectRule{"no-name", true, nil}
	ruleNoFormat   = inspectRule{"no-backing-format", true, nil}
	ruleFormat     = inspectRule{"backing-format", true, nil}
	ruleEncrypted  = inspectRule{"encrypted", true, nil}
	ruleLegacyAES  = inspectRule{"aes-encryption", true, nil}
	ruleCorrupt    = inspectRule{"corrupt-bit", true, nil}
	ruleDirty      = inspectRule{"dirty-bit", false, nil}
	ruleUnknown    = inspectRule{"unsupported-feature", true, nil}
	ruleBits       = inspectRule{"unknown-feature-bit", false, nil}
	ruleExtension  = inspectRule{"unknown-extension", false, nil}
	ruleSnapshots  = inspectRule{"snapshots", false, nil}
	ruleVMState    = inspectRule{"vm-state", true, nil}
	ruleBitmaps    = inspectRule{"bitmaps", false, nil}
	ruleSize       = inspectRule{"virtual-size", true, nil}
	ruleRatio      = inspectRule{"ratio", true, nil}
	ruleShared     = inspectRule{"shared-data", true, nil}
	ruleBroken     = inspectRule{"broken", true, nil}
	ruleLimit      = inspectRule{"limit", true, nil}
	ruleNotQcow2   = inspectRule{"not-qcow2", true, nil}
	ruleTwoFormats = inspectRule{"second-format", true, nil}
)

// addError notes an error of reading the image: a rule of the format that is broken,
// a limit, or a feature. Other errors are not about the image; they come back.
func (r *inspectReport) addError(err error) error {
	var (
		limit       *qcow2.LimitError
		format      *qcow2.FormatError
		unsupported *qcow2.UnsupportedError
	)
	rule := ruleBroken
	switch {
	case err == nil:
		return nil
	case errors.As(err, &limit):
		rule = ruleLimit
		rule.cves = cvesOf(limit.Format)
	case errors.As(err, &format):
		rule.cves = cvesOf(format)
	case errors.As(err, &unsupported):
		rule = ruleUnknown
	case statusOf(err) == exitBad:
	default:
		return err
	}
	r.add(rule, "%v", err)
	return nil
}

// fieldCVEs are the fields of the header that QEMU before 2.0 did not check.
var fieldCVEs = map[string][]string{
	"header_length":           {"CVE-2014-0144"},
	"backing_file_offset":     {"CVE-2014-0144"},
	"backing_file_size":       {"CVE-2014-0144"},
	"refcount_table_clusters": {"CVE-2014-0144", "CVE-2014-0147"},
	"refcount_table_offset":   {"CVE-2014-0144", "CVE-2014-0147"},
	"nb_snapshots":            {"CVE-2014-0144", "CVE-2014-0146"},
	"snapshots_offset":        {"CVE-2014-0144", "CVE-2014-0146"},
	"l1_size":                 {"CVE-2014-0143", "CVE-2014-0144"},
	"l1_table_offset":         {"CVE-2014-0144"},
	"size":                    {"CVE-2014-0144"},
}

// cvesOf are the CVE numbers under which bytes that break this rule became known.
func cvesOf(e *qcow2.FormatError) []string {
	switch {
	case e.Structure == "header":
		return slices.Clone(fieldCVEs[e.Field])
	case e.Structure == "snapshot table" && strings.Contains(e.Field, "l1_"),
		e.Structure == "snapshot table" && strings.Contains(e.Field, "disk_size"):
		return []string{"CVE-2014-0143", "CVE-2014-0145"}
	case e.Structure == "snapshot table":
		return []string{"CVE-2014-0144"}
	case e.Structure == "refcount table":
		return []string{"CVE-2014-0143", "CVE-2014-0147"}
	}
	return nil
}
