package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/explain"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/lab/scenario"
	"moire.dev/moire/snapshot/policy"
)

// TestScenariosReal is stage 3: every scenario with a real control plane, real
// agents and real traffic between namespaces.
func TestScenariosReal(t *testing.T) {
	l := theLab(t)
	all, err := scenario.Read(os.DirFS("scenario"), ".")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if why := s.Not[3]; why != "" {
			t.Logf("%s is not for this stage: %s", s.Name, why)
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			r := &real{t: t, lab: l, external: map[string]bool{}, attached: map[string]string{}, present: map[string]runtime.Object{}}
			defer r.end()
			if err := scenario.Run(s, r); err != nil {
				t.Error(err)
			}
		})
	}
}

// real is the Runner of stage 3. What is declared is attached: every Workload
// gets a namespace of its own on the node that it is bound to.
type real struct {
	t        *testing.T
	lab      *Lab
	external map[string]bool           // nodes without an agent
	attached map[string]string         // project/workload -> node
	present  map[string]runtime.Object // declared now
}

func (r *real) netns(workload string) string {
	return filepath.Join(netnsDir, "moire-t-s-"+strings.ReplaceAll(workload, "/", "-"))
}

// Apply declares and removes through the command line, then attaches what is
// new.
func (r *real) Apply(put, del []runtime.Object) error {
	for _, o := range del {
		delete(r.present, scenario.ID(o))
		if w, ok := o.(*v1alpha1.Workload); ok {
			if err := r.detach(w.Namespace + "/" + w.Name); err != nil {
				return err
			}
		}
	}
	if err := r.write("delete", del); err != nil {
		return err
	}
	for _, o := range put {
		r.present[scenario.ID(o)] = o
	}
	if err := r.write("apply", put); err != nil {
		return err
	}
	for _, o := range put {
		if n, ok := o.(*v1alpha1.Node); ok && n.Spec.External {
			r.external[n.Name] = true
		}
	}
	for _, o := range r.present {
		if w, ok := o.(*v1alpha1.Workload); ok {
			r.attach(w)
		}
	}
	return r.settle()
}

func (r *real) write(verb string, objects []runtime.Object) error {
	if len(objects) == 0 {
		return nil
	}
	var docs []string
	for _, o := range objects {
		b, err := json.Marshal(o)
		if err != nil {
			return err
		}
		docs = append(docs, string(b))
	}
	file := filepath.Join(r.t.TempDir(), "intent.yaml")
	if err := os.WriteFile(file, []byte(strings.Join(docs, "\n---\n")), 0o644); err != nil {
		return err
	}
	if out, err := r.lab.moire(verb, "-f", file); err != nil {
		return fmt.Errorf("moire %s: %w\n%s", verb, err, out)
	}
	return nil
}

// attach attaches a Workload that is not attached yet. That it may not be is
// an answer too: unattached.
func (r *real) attach(w *v1alpha1.Workload) {
	name, node := w.Namespace+"/"+w.Name, w.Spec.Node
	if r.external[node] || r.attached[name] == node {
		return
	}
	path, err := makeNetns(filepath.Base(r.netns(name)))
	if err != nil {
		r.t.Fatal(err)
	}
	args := []string{"attach", "--run-dir", r.lab.RunDir, "--node", node, "--netns", path, "--project", w.Namespace, "--name", w.Name}
	for _, i := range w.Spec.Interfaces {
		args = append(args, "--network", i.Network)
	}
	out, err := r.lab.moire(args...)
	if err != nil {
		r.t.Logf("%s is not attached: %s", name, out)
		return
	}
	r.attached[name] = node
}

func (r *real) detach(name string) error {
	if node := r.attached[name]; node != "" {
		delete(r.attached, name)
		if out, err := r.lab.moire("detach", "--run-dir", r.lab.RunDir, "--node", node, name); err != nil {
			return fmt.Errorf("detach %s: %w\n%s", name, err, out)
		}
	}
	return removeNetns(filepath.Base(r.netns(name)))
}

// Move detaches, declares the new node and attaches there.
func (r *real) Move(w *v1alpha1.Workload) error {
	if err := r.detach(w.Namespace + "/" + w.Name); err != nil {
		return err
	}
	return r.Apply([]runtime.Object{w}, nil)
}

// Health is not for this stage yet: a scenario that needs it says so.
func (r *real) Health(string, bool) error { return errors.New("no Workload can be made ill here") }

// Away stops the agent of a node, or starts it again.
func (r *real) Away(string, bool) error { return errors.New("no node can be away here") }

// Answer is for stages that are told what is resolved.
func (r *real) Answer(string, []netip.Addr) error {
	return errors.New("no name can be given addresses here")
}

// settle waits until the control plane has seen the last change and every
// node has applied what is wanted.
func (r *real) settle() error {
	var out string
	var err error
	calm := 0
	for range 100 {
		time.Sleep(100 * time.Millisecond)
		if out, err = r.lab.moire("status"); err != nil {
			calm = 0
			continue
		}
		if calm++; calm == 3 {
			return nil
		}
	}
	return fmt.Errorf("the nodes do not settle: %w\n%s", err, out)
}

// Check sends real traffic and compares what came through, and what records
// say of it, with what is expected.
func (r *real) Check(c *scenario.Check) error {
	if c.Problem != "" {
		return nil // compile's own matter: stage 1
	}
	a, err := r.explain(c)
	if err != nil {
		return err
	}
	if a.Error != "" {
		return c.Compare(scenario.Seen{Verdict: scenario.Unattached})
	}
	if a.Destination == nil {
		to, err := netip.ParseAddr(c.To)
		if err != nil {
			return err
		}
		a.Destination = &explain.End{Address: to, VNI: a.Source.VNI}
	}
	if a.Source.Address.Is6() != a.Destination.Address.Is6() || a.Source.VNI != a.Destination.VNI {
		return nil // no such packet can be written, or it is for somebody else there
	}
	if r.external[a.Source.Node] || r.external[a.Destination.Node] {
		return nil // nobody is there; datapath shows a Linux vxlan device as the other end
	}
	return r.probe(c, a)
}

// explain asks the control plane who the ends are.
func (r *real) explain(c *scenario.Check) (explain.Answer, error) {
	var a explain.Answer
	args := []string{"explain", "--from", c.From, "--to", c.To, "--proto", c.Protocol, "-o", "json"}
	if c.Port != 0 {
		args = append(args, "--port", fmt.Sprint(c.Port))
	}
	if c.Network != "" {
		args = append(args, "--network", c.Network)
	}
	if project, _, ok := strings.Cut(c.Network, "/"); ok {
		args = append(args, "--project", project)
	}
	if c.IPv6 {
		args = append(args, "--ipv6")
	}
	out, err := r.lab.moire(args...)
	if strings.Contains(out, "cannot tell") {
		return explain.Answer{Error: out}, nil
	}
	if json.Unmarshal([]byte(out), &a) != nil {
		return a, fmt.Errorf("moire %v: %v\n%s", args, err, out)
	}
	return a, nil
}

func (r *real) probe(c *scenario.Check, a explain.Answer) error {
	from, to := a.Source.Project+"/"+a.Source.Workload, a.Destination.Project+"/"+a.Destination.Workload
	p := Probe{From: r.netns(from), To: r.netns(to), Source: a.Source.Address, Dest: a.Destination.Address, Protocol: protocols[c.Protocol], Port: c.Port}
	if c.Verdict == scenario.Allow {
		p.Wait = 3 * time.Second
	}
	if a.Destination.Workload == "" {
		p.To = "" // nobody listens
	}
	began := time.Now()
	time.Sleep(20 * time.Millisecond) // times of records are exact to 4 ms
	came, err := p.Run()
	if err != nil {
		return fmt.Errorf("line %d: %s: %w", c.Line, c.Text, err)
	}
	if came != (c.Verdict == scenario.Allow) {
		return fmt.Errorf("line %d: %s: the packet came through: %v", c.Line, c.Text, came)
	}
	for range 30 {
		if err = r.compare(c, a, began); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	if p.To == "" && p.Dest.Is4() == p.Source.Is4() && r.onLink(p) {
		return nil // nobody answered the question for its MAC, so nothing was sent
	}
	return err
}

// onLink: the source thinks that the destination is its neighbour.
func (r *real) onLink(p Probe) bool {
	neighbour := false
	InNetns(p.From, func() error {
		out, err := exec.Command("ip", "route", "get", p.Dest.String()).CombinedOutput()
		neighbour = err == nil && !strings.Contains(string(out), " via ")
		return nil
	})
	return neighbour
}

// compare looks for records of the probe that say what is expected.
func (r *real) compare(c *scenario.Check, a explain.Answer, began time.Time) error {
	out, err := r.lab.moire("flows", "--since", began.UTC().Format(time.RFC3339Nano), "--from", a.Source.Address.String(), "-o", "json", "--limit", "200")
	if err != nil {
		return fmt.Errorf("moire flows: %w\n%s", err, out)
	}
	seen := scenario.Seen{Verdict: c.Verdict}
	for line := range strings.Lines(out) {
		var x record.Record
		if json.Unmarshal([]byte(line), &x) != nil || x.Destination.Address != a.Destination.Address || x.Source.VNI != a.Source.VNI ||
			x.Protocol != c.Protocol || c.Port != 0 && x.Destination.Port != c.Port || x.Time.Before(began) {
			continue
		}
		note(&seen, x)
	}
	if err := c.Compare(seen); err != nil {
		return fmt.Errorf("records: %w\n%s", err, out)
	}
	return nil
}

// note adds what one record says.
func note(seen *scenario.Seen, x record.Record) {
	rule := policy.RuleID(x.Rule)
	if x.Drop != "" {
		rule = policy.RuleID("closed/" + x.Drop)
	}
	if x.Verdict == record.Deny {
		seen.Rule = rule
	}
	switch {
	case x.Observer == record.AtDestination:
		seen.Ingress = rule
	case x.Direction == policy.Egress.String():
		seen.Egress = rule
	}
	if x.Observer == record.AtBoth && x.IngressRule != "" {
		seen.Ingress = policy.RuleID(x.IngressRule)
	}
	if x.ShadowRule != "" {
		seen.Shadow, seen.ShadowRule = x.ShadowVerdict, policy.RuleID(x.ShadowRule)
	}
}

// end removes everything that the scenario made.
func (r *real) end() {
	for name := range r.attached {
		if err := r.detach(name); err != nil {
			r.t.Error(err)
		}
	}
	var rest []runtime.Object
	for _, o := range r.present {
		rest = append(rest, o)
		if w, ok := o.(*v1alpha1.Workload); ok {
			removeNetns(filepath.Base(r.netns(w.Namespace + "/" + w.Name)))
		}
	}
	if err := r.write("delete", rest); err != nil {
		r.t.Error(err)
	}
}
