package lab

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/explain"
	"moire.dev/moire/lab/scenario"
)

// TestScenariosReal is stage 3: every scenario with a real control plane, real
// agents and real traffic between namespaces.
func TestScenariosReal(t *testing.T) {
	l := theLab(t)
	all, err := scenario.Read(os.DirFS("scenario"), ".")
	if err != nil {
		t.Fatal(err)
	}
	out, err := l.outside()
	if err != nil {
		t.Fatal(err)
	}
	defer l.noOutside()
	names, err := serveNames(out)
	if err != nil {
		t.Fatal(err)
	}
	defer names.close()
	for _, s := range all {
		if why := s.Not[3]; why != "" {
			t.Logf("%s is not for this stage: %s", s.Name, why)
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			r := &real{t: t, lab: l, external: map[string]bool{}, attached: map[string]string{}, present: map[string]runtime.Object{}, outside: out, names: names, world: newWorld()}
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
	outside  string                    // namespace of what is outside, as a path
	names    *nameServer               // there
	world
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
	if err := r.attachAll(); err != nil {
		return err
	}
	if err := r.furnish(); err != nil {
		return err
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

// AtOnce: probes wait most of their time.
func (r *real) AtOnce() int { return 4 }

// attachAll attaches the Workloads that are not attached yet. That one may not
// be is an answer too: unattached.
func (r *real) attachAll() error {
	var all errgroup.Group
	var mu sync.Mutex
	for _, o := range r.present {
		w, ok := o.(*v1alpha1.Workload)
		if !ok || r.external[w.Spec.Node] || r.attached[w.Namespace+"/"+w.Name] == w.Spec.Node {
			continue
		}
		all.Go(func() error {
			name := w.Namespace + "/" + w.Name
			path, err := makeNetns(filepath.Base(r.netns(name)))
			if err != nil {
				return err
			}
			var networks []string
			for _, i := range w.Spec.Interfaces {
				networks = append(networks, i.Network)
			}
			out, err := r.lab.several(w.Spec.Node, w.Namespace, w.Name, path, networks...)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				r.t.Logf("%s is not attached: %s", name, out)
				return nil
			}
			r.attached[name] = w.Spec.Node
			return nil
		})
	}
	return all.Wait()
}

func (r *real) detach(names ...string) error {
	var all errgroup.Group
	for _, name := range names {
		for key := range r.made {
			if strings.HasPrefix(key, name+" ") {
				delete(r.made, key)
			}
		}
		node := r.attached[name]
		delete(r.attached, name)
		all.Go(func() error {
			if node == "" {
				return removeNetns(filepath.Base(r.netns(name)))
			}
			if out, err := r.lab.moire("detach", "--run-dir", r.lab.RunDir, "--node", node, name); err != nil {
				return fmt.Errorf("detach %s: %w\n%s", name, err, out)
			}
			return removeNetns(filepath.Base(r.netns(name)))
		})
	}
	return all.Wait()
}

// Move detaches, declares the new node and attaches there.
func (r *real) Move(w *v1alpha1.Workload) error {
	if err := r.detach(w.Namespace + "/" + w.Name); err != nil {
		return err
	}
	return r.Apply([]runtime.Object{w}, nil)
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

// end removes everything that the scenario made.
func (r *real) end() {
	r.recover()
	if err := r.detach(slices.Collect(maps.Keys(r.attached))...); err != nil {
		r.t.Error(err)
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
