package l7

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Problem is one thing that is wrong with a Config.
type Problem struct {
	// Field is where, in the names of the file: routes[2].rules[0].name.
	Field string
	// Reason says what is wrong, Fix what to do.
	Reason, Fix string
	// Soft: a proxy can run with it. A backend or mirror whose cluster does not
	// exist gets errors instead of requests; a route that no listener takes is
	// left out.
	Soft bool
}

// Error is all of it in one line.
func (p Problem) Error() string { return p.Field + ": " + p.Reason + "; " + p.Fix }

// Validate says everything that is wrong with c and can be seen without files,
// in the order of the fields. Certificates and bundles are not opened here.
func (c *Config) Validate() []Problem {
	v := &validator{config: c, places: map[place][]int{}}
	v.whole()
	for i := range c.Listeners {
		v.listener(at("listeners", i), &c.Listeners[i], i)
	}
	v.attachments()
	for i := range c.Routes {
		v.route(at("routes", i), &c.Routes[i])
	}
	for i := range c.Clusters {
		v.cluster(at("clusters", i), &c.Clusters[i])
	}
	for i := range c.Certificates {
		v.certificate(at("certificates", i), &c.Certificates[i])
	}
	v.telemetry("telemetry", &c.Telemetry)
	return v.problems
}

// validator gathers Problems.
type validator struct {
	config       *Config
	problems     []Problem
	listeners    map[string]int
	places       map[place][]int // listeners before, in order
	clusters     map[string]int
	certificates map[string]int
	slashes      bool // some listener passes encoded slashes on
}

func (v *validator) bad(field, fix, reason string, args ...any) {
	v.problems = append(v.problems, Problem{Field: field, Reason: fmt.Sprintf(reason, args...), Fix: fix})
}

func (v *validator) soft(field, fix, reason string, args ...any) {
	v.problems = append(v.problems, Problem{Field: field, Reason: fmt.Sprintf(reason, args...), Fix: fix, Soft: true})
}

// at is the field of an entry of a list.
func at(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }

// choice checks a value that is one of a few; empty is the default.
func choice[T ~string](v *validator, field string, value T, possible ...T) bool {
	if value == "" || slices.Contains(possible, value) {
		return true
	}
	var names, all []string
	for _, p := range possible {
		names = append(names, string(p))
		all = append(all, strconv.Quote(string(p)))
	}
	fix := "use one of " + strings.Join(all, ", ")
	if n := Nearest(string(value), names); n != "" {
		fix = fmt.Sprintf("did you mean %q?", n)
	}
	v.bad(field, fix, "%s is not possible here", quote(string(value)))
	return false
}

// span checks a whole number.
func (v *validator) span(field string, value, least, most int) {
	if value < least || value > most {
		v.bad(field, fmt.Sprintf("write a number from %d to %d", least, most), "%d is out of range", value)
	}
}

// notNegative checks durations for which a negative one means nothing.
func (v *validator) notNegative(field string, d Duration) {
	if d < 0 {
		text, _ := d.MarshalText()
		v.bad(field, "write a duration such as 500ms or 10s, or leave it out", "%s is negative", text)
	}
}

// reference checks that a name exists; field is the field that has it.
func (v *validator) reference(field, what, name string, known map[string]int) (int, bool) {
	i, ok := known[name]
	if !ok {
		reason, fix := missing(what, name, known)
		v.bad(field, fix, "%s", reason)
	}
	return i, ok
}

func missing(what, name string, known map[string]int) (reason, fix string) {
	if name == "" {
		return fmt.Sprintf("no %s is named", what), fmt.Sprintf("name one of the %ss", what)
	}
	names := make([]string, 0, len(known))
	for n := range known {
		names = append(names, n)
	}
	slices.Sort(names)
	fix = fmt.Sprintf("add it, or name a %s that exists", what)
	if n := Nearest(name, names); n != "" {
		fix = fmt.Sprintf("did you mean %q?", n)
	}
	return fmt.Sprintf("there is no %s %s", what, quote(name)), fix
}

// Nearest is the possible word that was probably meant, or empty: the first at
// the least distance, when at most a third of it differs, else the first that
// has the word in it.
func Nearest(word string, possible []string) string {
	best, least := "", 1<<30
	word = strings.ToLower(word)
	for _, p := range possible {
		if d := distance(word, strings.ToLower(p)); d < least && d <= max(1, len(p)/3) {
			best, least = p, d
		}
	}
	for _, p := range possible {
		if best == "" && len(word) > 3 && strings.Contains(strings.ToLower(p), word) {
			best = p
		}
	}
	return best
}

// distance is the number of letters to insert, delete, replace or swap.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 1 << 20
	}
	var rows [3][65]int
	for j := range len(b) + 1 {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row := &rows[(i+2)%3], &rows[i%3], &rows[(i+1)%3]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return rows[(len(a)+1)%3][len(b)]
}
