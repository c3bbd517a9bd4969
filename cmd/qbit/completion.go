package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

var completions = map[string]func(io.Writer){
	"bash": bashCompletion,
	"zsh":  zshCompletion,
	"fish": fishCompletion,
}

// runCompletion is `qbit completion SHELL`: a script made from the same table
// and flag sets that parse the command line.
func runCompletion(c *console, args []string) int {
	if len(args) == 1 && (args[0] == "-h" || args[0] == "--help") {
		io.WriteString(c.out, completionHelp)
		return exitDone
	}
	if len(args) == 1 {
		if write, ok := completions[args[0]]; ok {
			write(c.out)
			return exitDone
		}
	}
	return c.fail(usagef("completion takes one shell: bash, zsh or fish"), statusOf)
}

const completionHelp = `Usage: qbit completion bash|zsh|fish

Prints a completion script. To use it:
  bash   source <(qbit completion bash)
  zsh    qbit completion zsh > "${fpath[1]}/_qbit"
  fish   qbit completion fish > ~/.config/fish/completions/qbit.fish

Exit status:
  0  done
  3  the command line is wrong
`

// verbNames is every word that can come first.
func verbNames() []string {
	var names []string
	for _, v := range verbs() {
		names = append(names, v.name)
	}
	return append(names, "help", "completion")
}

// flagsOf is the flags of a verb in their order.
func flagsOf(v verb) []*pflag.Flag {
	var flags []*pflag.Flag
	flagSet(v, v.new()).VisitAll(func(f *pflag.Flag) { flags = append(flags, f) })
	return flags
}

// wordsOf is the words that a flag takes, if there are only a few.
func wordsOf(f *pflag.Flag) []string {
	if c, ok := f.Value.(choice); ok {
		return c.words
	}
	return nil
}

// takesValue says that the next word belongs to the flag.
func takesValue(f *pflag.Flag) bool { return f.NoOptDefVal == "" }

// spellings is how a flag can be written.
func spellings(f *pflag.Flag) []string {
	if f.Shorthand == "" {
		return []string{"--" + f.Name}
	}
	return []string{"--" + f.Name, "-" + f.Shorthand}
}

// bashCompletion writes one function: the words of the flag before the cursor,
// else the flags of the verb, else the verbs; else bash completes a file name.
func bashCompletion(w io.Writer) {
	fmt.Fprint(w, "# bash completion for qbit\n_qbit() {\n")
	fmt.Fprint(w, "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=\n")
	fmt.Fprint(w, "\tif [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi\n")
	fmt.Fprintf(w, "\tif ((COMP_CWORD == 1)); then\n\t\twords=%q\n\telse\n\t\tcase ${COMP_WORDS[1]} in\n", strings.Join(verbNames(), " "))
	for _, v := range verbs() {
		bashVerb(w, v)
	}
	fmt.Fprintf(w, "\t\thelp) words=%q ;;\n\t\tcompletion) words=\"bash zsh fish\" ;;\n\t\tesac\n\tfi\n", strings.Join(verbNames(), " "))
	fmt.Fprint(w, "\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\ncomplete -o default -F _qbit qbit\n")
}

func bashVerb(w io.Writer, v verb) {
	var all []string
	fmt.Fprintf(w, "\t\t%s)\n\t\t\tcase $prev in\n", v.name)
	for _, f := range flagsOf(v) {
		all = append(all, spellings(f)...)
		if takesValue(f) {
			fmt.Fprintf(w, "\t\t\t%s) words=%q ;;\n", strings.Join(spellings(f), "|"), strings.Join(wordsOf(f), " "))
		}
	}
	fmt.Fprintf(w, "\t\t\t*) if [[ $cur == -* ]]; then words=%q; fi ;;\n\t\t\tesac ;;\n", strings.Join(all, " "))
}

// zshCompletion writes one _arguments call a verb.
func zshCompletion(w io.Writer) {
	fmt.Fprint(w, "#compdef qbit\n_qbit() {\n\tif (( CURRENT == 2 )); then\n\t\tlocal -a verbs=(\n")
	for _, v := range verbs() {
		fmt.Fprintf(w, "\t\t\t%s\n", zshQuote(v.name+":"+v.short))
	}
	fmt.Fprint(w, "\t\t\t'help:print the help of a verb'\n\t\t\t'completion:print a completion script'\n\t\t)\n")
	fmt.Fprint(w, "\t\t_describe verb verbs\n\t\treturn\n\tfi\n\tlocal verb=$words[2]\n\tshift words; (( CURRENT-- ))\n\tcase $verb in\n")
	for _, v := range verbs() {
		fmt.Fprintf(w, "\t%s)\n\t\t_arguments -s", v.name)
		for _, f := range flagsOf(v) {
			zshFlag(w, f)
		}
		fmt.Fprint(w, " '*:file:_files' ;;\n")
	}
	fmt.Fprintf(w, "\thelp) _values verb %s ;;\n\tcompletion) _values shell bash zsh fish ;;\n\tesac\n}\n_qbit \"$@\"\n",
		strings.Join(verbNames(), " "))
}

func zshFlag(w io.Writer, f *pflag.Flag) {
	kind, usage := pflag.UnquoteUsage(f)
	usage = strings.NewReplacer("[", "(", "]", ")", ":", ";", "\n", " ").Replace(usage)
	for _, s := range spellings(f) {
		spec := "*" + s
		if takesValue(f) && strings.HasPrefix(s, "--") {
			spec += "="
		}
		spec += "[" + usage + "]"
		switch words := wordsOf(f); {
		case words != nil:
			spec += ":word:(" + strings.Join(words, " ") + ")"
		case takesValue(f):
			spec += ":" + strings.ReplaceAll(kind, ":", ";") + ":_files"
		}
		fmt.Fprintf(w, " \\\n\t\t\t%s", zshQuote(spec))
	}
}

// zshQuote is a word in single quotes; fish reads it the same way unless it
// holds a backslash or a quote.
func zshQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// fishCompletion writes one complete command a verb and a flag.
func fishCompletion(w io.Writer) {
	fmt.Fprint(w, "# fish completion for qbit\n")
	first := fmt.Sprintf("complete -c qbit -n 'not __fish_seen_subcommand_from %s' -f", strings.Join(verbNames(), " "))
	for _, v := range verbs() {
		fmt.Fprintf(w, "%s -a %s -d %s\n", first, v.name, fishQuote(v.short))
	}
	fmt.Fprintf(w, "%s -a help -d 'print the help of a verb'\n%s -a completion -d 'print a completion script'\n", first, first)
	for _, v := range verbs() {
		for _, f := range flagsOf(v) {
			fishFlag(w, v, f)
		}
	}
	fmt.Fprintf(w, "complete -c qbit -n '__fish_seen_subcommand_from help' -f -a %s\n", fishQuote(strings.Join(verbNames(), " ")))
	fmt.Fprint(w, "complete -c qbit -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'\n")
}

func fishFlag(w io.Writer, v verb, f *pflag.Flag) {
	_, usage := pflag.UnquoteUsage(f)
	fmt.Fprintf(w, "complete -c qbit -n '__fish_seen_subcommand_from %s' -l %s", v.name, f.Name)
	if f.Shorthand != "" {
		fmt.Fprintf(w, " -s %s", f.Shorthand)
	}
	switch words := wordsOf(f); {
	case words != nil:
		fmt.Fprintf(w, " -x -a %s", fishQuote(strings.Join(words, " ")))
	case takesValue(f):
		fmt.Fprint(w, " -r")
	}
	fmt.Fprintf(w, " -d %s\n", fishQuote(strings.ReplaceAll(usage, "\n", " ")))
}

func fishQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}
