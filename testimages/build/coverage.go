package build

import (
	"fmt"
	"strings"
)

// A Verdict is what a program did with the image of a recipe, a word or two for each of
// its commands.
type Verdict struct {
	Info, Check, Convert string
}

// treatments are what a reader has to do with the images of recipes.
var treatments = map[string]string{
	WhenOpen:      "refuses the image",
	WhenRead:      "refuses the bytes",
	WhenSnapshots: "refuses the snapshots; the disk reads",
	WhenSnapshot:  "refuses that snapshot; the disk reads",
	WhenBitmaps:   "refuses the bitmap, or all; the disk reads",
	WhenRefcounts: "check finds it; the disk reads",
	WhenAny:       "an answer or an error, soon",
}

// CoverageTable is the table of all recipes, in Markdown, with what another program does
// beside what ours has to do.
func CoverageTable(program string, verdict func(Recipe) Verdict) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| recipe | rule | qbit | %s info | check | convert |\n|---|---|---|---|---|---|\n", program)
	for _, r := range Recipes() {
		b.WriteString(r.row(verdict(r)))
	}
	return b.String()
}

// row is the line of a recipe.
func (r *Recipe) row(v Verdict) string {
	rule := r.Rule
	if r.CVE != "" {
		rule += " (" + strings.ReplaceAll(r.CVE, " ", ", ") + ")"
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s |\n", r.Name, rule, treatments[r.When], v.Info, v.Check, v.Convert)
}
