package control

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
// first warning.
func first(problems []v1alpha1.Problem) map[string]v1alpha1.Problem {
	out := make(map[string]v1alpha1.Problem, len(problems))
	for _, p := range problems {
		if have, ok := out[p.Object]; !ok || have.Warning && !p.Warning {
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

// conditions says which Networks and Domains shall say something new.
func conditions(in *compile.Input, problems map[string]v1alpha1.Problem) (map[compile.Key]condition, map[string]condition) {
	networks, domains := map[compile.Key]condition{}, map[string]condition{}
	for k, n := range in.Networks {
		if n.DeletionTimestamp != nil {
			continue
		}
		p, bad := problems["Network "+k.String()]
		c := judge(p, bad, fmt.Sprintf("network id %d", n.Status.VNI))
		if !bad && n.Status.VNI == 0 {
			c = condition{reason: "Allocating", message: "waiting for a network id; the control plane gives one within seconds"}
		}
		if !c.same(n.Status.Conditions) {
			networks[k] = c
		}
	}
	for name, d := range in.Domains {
		p, bad := problems["Domain "+name]
		if c := judge(p, bad, "trust domain "+compile.TrustDomain(d)); d.DeletionTimestamp == nil && !c.same(d.Status.Conditions) {
			domains[name] = c
		}
	}
	return networks, domains
}

// writeDomain writes the condition of a Domain through the API.
func (c clients) writeDomain(ctx context.Context, name string, want condition) error {
	for range 10 {
		var d v1alpha1.Domain
		err := c.moire.Get().Resource("domains").Name(name).Do(ctx).Into(&d)
		if err == nil {
			if !setCondition(&d.Status.Conditions, want, d.Generation) {
				return nil
			}
			err = c.moire.Put().Resource("domains").Name(name).SubResource("status").Body(&d).Do(ctx).Error()
		}
		switch {
		case err == nil || apierrors.IsNotFound(err):
			return nil
		case !apierrors.IsConflict(err):
			return fmt.Errorf("control: write status of Domain %s: %w", name, err)
		}
	}
	return fmt.Errorf("control: Domain %s keeps changing; trying again", name)
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
