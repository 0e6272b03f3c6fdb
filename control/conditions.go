package control

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
)

// ready is the type of the one condition that we write.
const ready = "Ready"

// maxMessage bounds a message in bytes, as the API does.
const maxMessage = 32 << 10

// condition is what Ready shall say.
type condition struct {
	ok      bool
	reason  string // a word
	message string
}

func (c condition) status() metav1.ConditionStatus {
	if c.ok {
		return metav1.ConditionTrue
	}
	return metav1.ConditionFalse
}

// same reports whether the list says so already.
func (c condition) same(have []metav1.Condition) bool {
	h := meta.FindStatusCondition(have, ready)
	return h != nil && h.Status == c.status() && h.Reason == c.reason && h.Message == c.message
}

// setCondition writes c into the list and reports whether that changed it.
func setCondition(list *[]metav1.Condition, c condition, generation int64) bool {
	if c.same(*list) {
		return false
	}
	return meta.SetStatusCondition(list, metav1.Condition{Type: ready, Status: c.status(), Reason: c.reason,
		Message: c.message, ObservedGeneration: generation, LastTransitionTime: metav1.Now()})
}

// first sorts problems by object: the first one that is no warning, else the
// warning with the lowest code, because that is the cause of the others.
func first(problems []v1alpha1.Problem) map[string]v1alpha1.Problem {
	out := make(map[string]v1alpha1.Problem, len(problems))
	for _, p := range problems {
		if have, ok := out[p.Object]; !ok || have.Warning && (!p.Warning || p.Code < have.Code) {
			out[p.Object] = p
		}
	}
	return out
}

// sentence is "field: reason; fix".
func sentence(p v1alpha1.Problem) string {
	s := p.Reason
	if p.Field != "" {
		s = p.Field + ": " + s
	}
	if p.Fix != "" {
		s += "; " + p.Fix
	}
	if len(s) > maxMessage {
		s = s[:maxMessage]
	}
	return s
}

// judge turns a problem, if there is one, into a condition.
func judge(p v1alpha1.Problem, bad bool, good string) condition {
	if !bad {
		return condition{ok: true, reason: ready, message: good}
	}
	return condition{ok: p.Warning, reason: cmp.Or(p.Code, "Problem"), message: sentence(p)}
}

// judgements are the conditions that shall say something new.
type judgements struct {
	networks map[compile.Key]condition
	domains  map[string]condition
	policies map[compile.Key]condition
}

// conditions says which Networks, Domains and Policies shall say something
// new. policies are the objects with their newest status.
func conditions(in *compile.Input, policies map[compile.Key]*v1alpha1.Policy, problems map[string]v1alpha1.Problem) judgements {
	out := judgements{networks: map[compile.Key]condition{}, domains: map[string]condition{}, policies: map[compile.Key]condition{}}
	for k, n := range in.Networks {
		if n.DeletionTimestamp != nil {
			continue
		}
		p, bad := problems["Network "+k.String()]
		c := judge(p, bad, fmt.Sprintf("network id %d", n.Status.VNI))
		if n.Status.VNI == 0 && !bad {
			c = condition{reason: "Allocating", message: "waiting for a network id; the control plane gives one within seconds"}
		}
		if !c.same(n.Status.Conditions) {
			out.networks[k] = c
		}
	}
	for name, d := range in.Domains {
		p, bad := problems["Domain "+name]
		if c := judge(p, bad, "trust domain "+compile.TrustDomain(d)); d.DeletionTimestamp == nil && !c.same(d.Status.Conditions) {
			out.domains[name] = c
		}
	}
	for k, o := range policies {
		p, bad := problems["Policy "+k.String()]
		if c := judge(p, bad, "in force"); o.DeletionTimestamp == nil && !c.same(o.Status.Conditions) {
			out.policies[k] = c
		}
	}
	return out
}

// writer writes the conditions of objects that have nothing else in status.
type writer interface {
	writeDomain(ctx context.Context, name string, want condition) error
	writePolicy(ctx context.Context, k compile.Key, want condition) error
}

// writeDomain writes the condition of a Domain through the API.
func (c clients) writeDomain(ctx context.Context, name string, want condition) error {
	var d v1alpha1.Domain
	return c.write(ctx, compile.Key{Name: name}, "domains", &d, func() bool { return setCondition(&d.Status.Conditions, want, d.Generation) })
}

// writePolicy writes the condition of a Policy through the API.
func (c clients) writePolicy(ctx context.Context, k compile.Key, want condition) error {
	var p v1alpha1.Policy
	return c.write(ctx, k, "policies", &p, func() bool { return setCondition(&p.Status.Conditions, want, p.Generation) })
}

// write reads an object into o and writes its status if set changed it.
func (c clients) write(ctx context.Context, k compile.Key, resource string, o runtime.Object, set func() bool) error {
	for range 10 {
		err := c.moire.Get().NamespaceIfScoped(k.Project, k.Project != "").Resource(resource).Name(k.Name).Do(ctx).Into(o)
		if err == nil {
			if !set() {
				return nil
			}
			err = c.moire.Put().NamespaceIfScoped(k.Project, k.Project != "").Resource(resource).Name(k.Name).SubResource("status").Body(o).Do(ctx).Error()
		}
		switch {
		case err == nil || apierrors.IsNotFound(err):
			return nil
		case !apierrors.IsConflict(err):
			return fmt.Errorf("control: write status of %s %s: %w", resource, strings.TrimPrefix(k.String(), "/"), err)
		}
	}
	return fmt.Errorf("control: %s %s keeps changing; trying again", resource, strings.TrimPrefix(k.String(), "/"))
}

func keys[K comparable, V any](m map[K]V) iter.Seq[K] { return maps.Keys(m) }

func compareKeys(a, b compile.Key) int {
	return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Name, b.Name))
}

// sleep returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
