package scenario

import (
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
	"k8s.io/apimachinery/pkg/runtime"

	"moire.dev/moire/api/load"
	"moire.dev/moire/explain"
	"moire.dev/moire/snapshot/policy"
)

// Scenario is one parsed file.
type Scenario struct {
	// Name of the file without .txtar; Doc is its first comment.
	Name, Doc string
	// Nodes with an agent, in order.
	Nodes []string
	// Not says which stages it cannot run in, and why.
	Not   map[int]string
	Steps []Step
	files map[string]*load.Objects
}

// Actions of a Step.
const (
	Apply  = "apply"
	Delete = "delete"
	Move   = "move"
	Label  = "label"
	Health = "health"
	Away   = "away"
	Answer = "answer"
)

// Step changes the intent; its Checks hold afterwards.
type Step struct {
	Line   int
	Text   string
	Action string
	// Files of apply; the object "Kind project/name" of delete; the Workload
	// "project/name" of move, label and health; the name of answer.
	Files     []string
	Object    string
	Node      string            // of move and away
	Set       map[string]string // of label
	Unset     []string
	Off       bool         // of health: down; of away: the node is away
	Addresses []netip.Addr // of answer
	Checks    []Check
}

// Verdicts of a Check.
const (
	Allow      = "allow"
	Deny       = "deny"
	Depends    = "depends" // on which way a hash chooses
	Proxy      = "proxy"   // on the request
	Unattached = "unattached"
)

// Check is one expectation.
type Check struct {
	Line int
	Text string
	// From and To are "project/workload" or an address; To may also be a Service
	// or FloatingIP "project/name", or a DNS name.
	From, To string
	Protocol string // tcp, udp, sctp or icmp
	Port     uint16
	Network  string
	IPv6     bool
	Verdict  string
	// Rule, Egress and Ingress are empty when nothing is expected of them.
	Rule, Egress, Ingress policy.RuleID
	// Shadow is "", Allow or Deny; ShadowRule may be empty.
	Shadow     string
	ShadowRule policy.RuleID
	// Service or FloatingIP that answers; Backends that a hash may choose, sorted;
	// Via are the functions of the chain, in order, each with all instances that
	// a hash may choose, sorted.
	Service  string
	Backends []string
	Via      [][]string
	// Request, when set, is what is asked about. Route that takes it, and Status that
	// a proxy answers by itself; "" and 0: nothing is expected of them.
	Request *explain.Request
	Route   string
	Status  int
	// As is the source and At the destination, as the destination's side sees
	// them; At may have a port.
	As, At string
	// Problem, when set, makes it an expectation of a Problem instead.
	Problem, Object string
}

// Objects are those of a file of the scenario.
func (s *Scenario) Objects(file string) []runtime.Object {
	o := s.files[file]
	if o == nil {
		return nil
	}
	out := o.All()
	for i := range out {
		out[i] = out[i].DeepCopyObject()
	}
	return out
}

// Read parses every *.txtar of a directory, in order of their names.
func Read(fsys fs.FS, dir string) ([]*Scenario, error) {
	names, err := fs.Glob(fsys, path.Join(dir, "*.txtar"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var out []*Scenario
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		s, err := Parse(strings.TrimSuffix(path.Base(name), ".txtar"), text)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// Parse reads one file. Errors carry its name and line.
func Parse(name string, text []byte) (*Scenario, error) {
	archive := txtar.Parse(text)
	s := &Scenario{Name: name, files: map[string]*load.Objects{}}
	for _, f := range archive.Files {
		objects, problems := load.Loader{}.Bytes(f.Name, f.Data)
		for _, p := range problems {
			if !p.Warning {
				return nil, fmt.Errorf("%s.txtar: %w", name, p)
			}
		}
		s.files[f.Name] = objects
	}
	for i, line := range strings.Split(string(archive.Comment), "\n") {
		if err := s.line(i+1, strings.TrimSpace(line)); err != nil {
			return nil, fmt.Errorf("%s.txtar:%d: %w", name, i+1, err)
		}
	}
	if len(s.Steps) == 0 {
		return nil, fmt.Errorf("%s.txtar: nothing happens; write at least apply FILE", name)
	}
	return s, nil
}

func (s *Scenario) line(n int, text string) error {
	if comment, ok := strings.CutPrefix(text, "#"); ok {
		if len(s.Steps) == 0 {
			s.Doc = strings.TrimSpace(s.Doc + " " + strings.TrimSpace(comment))
		}
		return nil
	}
	words := strings.Fields(text)
	switch {
	case len(words) == 0:
		return nil
	case words[0] == "nodes":
		s.Nodes = words[1:]
		return nil
	case words[0] == "not":
		return s.not(words[1:])
	case words[0] == "problem" || len(words) > 1 && words[1] == "->":
		if len(s.Steps) == 0 {
			return fmt.Errorf("a check before the first step")
		}
		c, err := parseCheck(words)
		c.Line, c.Text = n, text
		last := &s.Steps[len(s.Steps)-1]
		last.Checks = append(last.Checks, c)
		return err
	}
	step, err := s.parseStep(words)
	step.Line, step.Text = n, text
	s.Steps = append(s.Steps, step)
	return err
}

// not reads "not STAGE... because REASON".
func (s *Scenario) not(w []string) error {
	i := slices.Index(w, "because")
	if i < 1 || i == len(w)-1 {
		return fmt.Errorf("write not STAGE... because REASON")
	}
	for _, stage := range w[:i] {
		n, err := strconv.Atoi(stage)
		if err != nil || n < 2 || n > 3 {
			return fmt.Errorf("%q is no stage that can be left out; write 2 or 3", stage)
		}
		if s.Not == nil {
			s.Not = map[int]string{}
		}
		s.Not[n] = strings.Join(w[i+1:], " ")
	}
	return nil
}

func (s *Scenario) parseStep(w []string) (Step, error) {
	st := Step{Action: w[0]}
	switch {
	case w[0] == Apply && len(w) > 1:
		st.Files = w[1:]
		for _, f := range st.Files {
			if s.files[f] == nil {
				return st, fmt.Errorf("there is no file %s below the script", f)
			}
		}
	case w[0] == Delete && len(w) == 3:
		st.Object = w[1] + " " + w[2]
	case w[0] == Move && len(w) == 3:
		st.Object, st.Node = w[1], w[2]
	case w[0] == Health && len(w) == 3 && (w[2] == "down" || w[2] == "up"):
		st.Object, st.Off = w[1], w[2] == "down"
	case w[0] == Away && len(w) == 2, w[0] == "back" && len(w) == 2:
		st.Action, st.Node, st.Off = Away, w[1], w[0] == Away
	case w[0] == Answer && len(w) > 1:
		st.Object = w[1]
		for _, text := range w[2:] {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return st, fmt.Errorf("%q is no address", text)
			}
			st.Addresses = append(st.Addresses, a)
		}
		slices.SortFunc(st.Addresses, netip.Addr.Compare)
	case w[0] == Label && len(w) > 2:
		st.Object, st.Set = w[1], map[string]string{}
		for _, l := range w[2:] {
			if k, v, ok := strings.Cut(l, "="); ok {
				st.Set[k] = v
			} else if k, ok := strings.CutSuffix(l, "-"); ok {
				st.Unset = append(st.Unset, k)
			} else {
				return st, fmt.Errorf("%q is no label; write key=value or key-", l)
			}
		}
	default:
		return st, fmt.Errorf("%q is no step; write nodes, not, apply, delete, move, label, health, away, back, answer, problem or FROM -> TO", strings.Join(w, " "))
	}
	return st, nil
}
