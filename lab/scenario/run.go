package scenario

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"moire.dev/moire/api/v1alpha1"
)

// Runner makes the intent real, however it does that. Objects that it gets
// must not be changed.
type Runner interface {
	// Apply creates or replaces the objects of put and removes those of del.
	// Declared Workloads are to be attached on their nodes when it returns, and
	// those removed to be detached.
	Apply(put, del []runtime.Object) error
	// Move detaches the Workload and attaches it to spec.node, which is new.
	Move(w *v1alpha1.Workload) error
	// Health makes a Workload fail its health checks, or pass them again.
	Health(workload string, well bool) error
	// Away stops the agent of a node, or starts it again.
	Away(node string, away bool) error
	// Answer says which addresses a DNS name outside has from now on.
	Answer(name string, addrs []netip.Addr) error
	// Check asks what happens; nil when it is as expected. See Check.Compare.
	Check(c *Check) error
}

// Quick is a Runner that can do several Checks of a step at the same time, as
// they do not depend on each other.
type Quick interface {
	Runner
	// AtOnce is how many.
	AtOnce() int
}

// Run takes a Scenario through a Runner and returns every failed Check. A
// step that cannot be made ends the run.
func Run(s *Scenario, r Runner) error {
	intent := map[string]runtime.Object{}
	var failed []error
	for i := range s.Steps {
		st := &s.Steps[i]
		if err := s.step(st, intent, r); err != nil {
			return errors.Join(append(failed, fmt.Errorf("%s.txtar:%d: %s: %w", s.Name, st.Line, st.Text, err))...)
		}
		for _, err := range check(st.Checks, r) {
			if err != nil {
				failed = append(failed, fmt.Errorf("%s.txtar: %w", s.Name, err))
			}
		}
	}
	return errors.Join(failed...)
}

// check returns what each Check said.
func check(cs []Check, r Runner) []error {
	out, at := make([]error, len(cs)), 1
	if q, ok := r.(Quick); ok {
		at = q.AtOnce()
	}
	var all errgroup.Group
	all.SetLimit(at)
	for i := range cs {
		all.Go(func() error { out[i] = r.Check(&cs[i]); return nil })
	}
	all.Wait()
	return out
}

func (s *Scenario) step(st *Step, intent map[string]runtime.Object, r Runner) error {
	switch st.Action {
	case Apply:
		var put []runtime.Object
		for _, f := range st.Files {
			for _, o := range s.Objects(f) {
				intent[ID(o)] = o
				put = append(put, o)
			}
		}
		return r.Apply(put, nil)
	case Delete:
		o := intent[st.Object]
		if o == nil {
			return fmt.Errorf("there is no %s", st.Object)
		}
		delete(intent, st.Object)
		return r.Apply(nil, []runtime.Object{o})
	}
	switch st.Action {
	case Health:
		return r.Health(st.Object, !st.Off)
	case Away:
		return r.Away(st.Node, st.Off)
	case Answer:
		return r.Answer(st.Object, st.Addresses)
	}
	old, _ := intent["Workload "+st.Object].(*v1alpha1.Workload)
	if old == nil {
		return fmt.Errorf("there is no Workload %s", st.Object)
	}
	w := old.DeepCopy()
	intent["Workload "+st.Object] = w
	if st.Action == Move {
		w.Spec.Node = st.Node
		return r.Move(w)
	}
	if w.Labels == nil {
		w.Labels = map[string]string{}
	}
	maps.Copy(w.Labels, st.Set)
	for _, k := range st.Unset {
		delete(w.Labels, k)
	}
	return r.Apply([]runtime.Object{w}, nil)
}

// ID is "Kind project/name" or "Kind name" of an object.
func ID(o runtime.Object) string {
	m, ok := o.(metav1.Object)
	if !ok {
		return ""
	}
	kind := o.GetObjectKind().GroupVersionKind().Kind
	if kind == "" {
		kind = strings.TrimPrefix(fmt.Sprintf("%T", o), "*v1alpha1.")
	}
	if m.GetNamespace() == "" {
		return kind + " " + m.GetName()
	}
	return kind + " " + m.GetNamespace() + "/" + m.GetName()
}

// Workloads lists the declared Workloads that a scenario ever has, in order
// of their ids: what a Runner with real processes has to prepare.
func (s *Scenario) Workloads() []*v1alpha1.Workload {
	found := map[string]*v1alpha1.Workload{}
	for _, o := range s.files {
		for id, w := range o.Workloads {
			found[id] = w
		}
	}
	var out []*v1alpha1.Workload
	for _, id := range slices.Sorted(maps.Keys(found)) {
		out = append(out, found[id])
	}
	return out
}
