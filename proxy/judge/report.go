package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// verdict is what one judge said.
type verdict struct {
	judge  string
	cases  int
	passed int
	// excepted are cases that fail for a reason that is written down.
	excepted []string
	failed   []string
	// notes are worth knowing and no failure.
	notes []string
	// table is Markdown.
	table string
}

// pass counts one case, failed unless err is nil.
func (v *verdict) pass(name string, err error) {
	v.cases++
	if err == nil {
		v.passed++
		return
	}
	what := strings.TrimSpace(name + ": " + err.Error())
	if reason, ok := exceptions[v.judge+"/"+name]; ok {
		v.excepted = append(v.excepted, what+" ("+reason+")")
		return
	}
	v.failed = append(v.failed, what)
}

// say counts one case, failed where wrong says how.
func (v *verdict) say(name, wrong string) {
	if wrong == "" {
		v.pass(name, nil)
		return
	}
	v.pass(name, fmt.Errorf("%s", wrong))
}

func (v *verdict) print(w io.Writer, all bool) {
	word := "ok  "
	if len(v.failed) > 0 {
		word = "FAIL"
	}
	fmt.Fprintf(w, "%s %-22s %4d cases %4d passed %3d exceptions %3d failed\n", word, v.judge, v.cases, v.passed, len(v.excepted), len(v.failed))
	show := func(mark string, lines []string) {
		slices.Sort(lines)
		for i, l := range lines {
			if i == 12 && !all {
				fmt.Fprintf(w, "     %s … and %d more; -v shows them\n", mark, len(lines)-i)
				break
			}
			if len(l) > 400 {
				l = l[:400] + "…"
			}
			fmt.Fprintf(w, "     %s %s\n", mark, strings.ReplaceAll(l, "\n", "\n       "))
		}
	}
	show("failed:", v.failed)
	show("except:", v.excepted)
	show("note:", v.notes)
	if v.table != "" {
		fmt.Fprintf(w, "\n%s\n", v.table)
	}
}

// exceptions are the cases that the proxy is known not to pass, by judge/case,
// each with the reason why that is right.
var exceptions = map[string]string{
	"h2spec-auto/http2/3.5/2": "a listener for both versions answers a broken preface as HTTP/1.1: 400, and closes",
}

// oneLine is s without line ends and without markup of XML reports.
func oneLine(s string) string {
	s = strings.NewReplacer("<failure>", "", "</failure>", "", "<error>", "", "</error>", "", "&#xA;", "; ", "&#34;", `"`, "&gt;", ">", "&lt;", "<", "&#39;", "'").Replace(s)
	return strings.Join(strings.Fields(s), " ")
}
