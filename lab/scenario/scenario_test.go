package scenario

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"moire.dev/moire/api/v1alpha1"
)

func all(t *testing.T) []*Scenario {
	t.Helper()
	out, err := Read(Files(), ".")
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 20 {
		t.Fatalf("only %d scenarios", len(out))
	}
	return out
}

// TestPure is stage 1: every scenario in every order, with the same snapshots.
func TestPure(t *testing.T) {
	for _, s := range all(t) {
		t.Run(s.Name, func(t *testing.T) {
			if s.Doc == "" {
				t.Error("the first comment does not say what is shown")
			}
			var first string
			for _, order := range Orders {
				p := NewPure(order)
				if err := Run(s, strict{p, s}); err != nil {
					t.Errorf("%s: %v", order, err)
				}
				if order == InOrder {
					first = p.Dump()
				} else if got := p.Dump(); got != first {
					t.Errorf("%s: other snapshots than in order:\n%s\nwant\n%s", order, got, first)
				}
			}
		})
	}
}

// strict is a Runner that fails on errors that the scenario does not expect.
type strict struct {
	*Pure
	s *Scenario
}

func (r strict) Apply(put, del []runtime.Object) error {
	if err := r.Pure.Apply(put, del); err != nil {
		return err
	}
	return r.unexpected()
}

func (r strict) Move(w *v1alpha1.Workload) error {
	if err := r.Pure.Move(w); err != nil {
		return err
	}
	return r.unexpected()
}

func (r strict) Health(workload string, well bool) error {
	if err := r.Pure.Health(workload, well); err != nil {
		return err
	}
	return r.unexpected()
}

func (r strict) Away(node string, away bool) error {
	if err := r.Pure.Away(node, away); err != nil {
		return err
	}
	return r.unexpected()
}

func (r strict) Answer(name string, addrs []netip.Addr) error {
	if err := r.Pure.Answer(name, addrs); err != nil {
		return err
	}
	return r.unexpected()
}

func (r strict) unexpected() error {
	for _, p := range r.Problems() {
		if !p.Warning && !r.expects(p) {
			return p
		}
	}
	return nil
}

func (r strict) expects(p v1alpha1.Problem) bool {
	return slices.ContainsFunc(r.s.Steps, func(st Step) bool {
		return slices.ContainsFunc(st.Checks, func(c Check) bool { return c.Problem == p.Code && c.Object == p.Object })
	})
}

// TestAWrongExpectationFails: the driver can fail.
func TestAWrongExpectationFails(t *testing.T) {
	for _, s := range all(t) {
		for i := range s.Steps {
			for j := range s.Steps[i].Checks {
				c := &s.Steps[i].Checks[j]
				switch {
				case c.Problem != "":
					c.Problem = "MOI0000"
				case c.Verdict == Allow:
					c.Verdict = Deny
				default:
					c.Verdict = Allow
				}
				if Run(s, NewPure(InOrder)) == nil {
					t.Errorf("%s: the opposite of %q passes too", s.Name, c.Text)
				}
				again, err := parseCheck(strings.Fields(c.Text))
				if err != nil {
					t.Fatal(err)
				}
				again.Line, again.Text = c.Line, c.Text
				*c = again
			}
		}
	}
}

func TestWrongFiles(t *testing.T) {
	for text, want := range map[string]string{
		"":                                            "nothing happens",
		"jump":                                        "is no step",
		"apply a.yaml":                                "there is no file",
		"a/b -> c/d tcp/1 allow":                      "before the first step",
		"move a/b n1\na/b -> c/d gre allow":           "is no protocol",
		"move a/b n1\na/b -> c/d tcp allow":           "is no port",
		"move a/b n1\na/b -> c/d tcp/99999 deny":      "is no port",
		"move a/b n1\na/b -> c/d tcp/1 maybe":         "is no verdict",
		"move a/b n1\na/b -> c/d tcp/1":               "write FROM -> TO",
		"move a/b n1\na/b -> c/d tcp/1 deny x=y":      "is no option",
		"move a/b n1\na/b -> c/d tcp/1 deny shadow=x": "is no shadow verdict",
		"move a/b n1\nproblem X":                      "write problem",
		"not 2 3":                                     "write not",
		"not 1 because":                               "write not",
		"not 1 because so":                            "is no stage",
		"health a/b ill":                              "is no step",
		"answer a.example b":                          "is no address",
		"label a/b c":                                 "is no label",
		"apply a.yaml\n-- a.yaml --\nkind: X\n":       "is not a kind",
	} {
		if _, err := Parse("x", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	s, err := Parse("x", []byte("move a/b n1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Run(s, NewPure(InOrder)); err == nil || !strings.Contains(err.Error(), "x.txtar:1: move a/b n1: there is no Workload a/b") {
		t.Errorf("got %v", err)
	}
}

// FuzzParse: whatever the bytes, no panic; what parses also runs.
func FuzzParse(f *testing.F) {
	entries, err := files.ReadDir(".")
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range entries {
		text, err := files.ReadFile(e.Name())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := Parse("x", text); err == nil {
			_ = Run(s, NewPure(Split))
		}
	})
}
