package control

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
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

// subject is an object that has a status of ours: the plural of its kind, and
// its key (Domains have no project).
type subject struct {
	resource string
	key      compile.Key
}

func (s subject) String() string { return s.resource + " " + strings.TrimPrefix(s.key.String(), "/") }

// saying is what a status shall say beside addresses.
type saying struct {
	condition
	// backends is "healthy/all" of a Service, node who answers for a FloatingIP.
	backends, node string
	// identity is how the CA of a Domain is; nil: as it was said.
	identity *v1alpha1.DomainIdentity
	// traffic, when set, is all: it is a route, or a policy about traffic.
	traffic *trafficSaying
	// minor: only numbers changed, which may wait a little.
	minor bool
}

// judgements is what shall be said anew.
type judgements struct {
	networks map[compile.Key]condition
	others   map[subject]saying
}

// conditions says which objects shall say something new. now are those whose
// status the compiler does not see, as they are on the server.
func conditions(in *compile.Input, now newest, needs compile.Needs, problems map[string]v1alpha1.Problem, statuses compile.Statuses, identity func(domain string) *v1alpha1.DomainIdentity) judgements {
	out := judgements{networks: map[compile.Key]condition{}, others: map[subject]saying{}}
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
	say := func(o metav1.Object, resource, kind string, have []metav1.Condition, same bool, s saying) {
		if o.GetDeletionTimestamp() != nil {
			return
		}
		key := compile.Key{Project: o.GetNamespace(), Name: o.GetName()}
		p, bad := problems[kind+" "+strings.TrimPrefix(key.String(), "/")]
		if bad && (!p.Warning || s.ok) {
			s.condition = judge(p, bad, "")
		}
		if !same || !s.same(have) {
			was := meta.FindStatusCondition(have, ready)
			s.minor = was != nil && was.Status == s.status() && was.Reason == s.reason
			out.others[subject{resource, key}] = s
		}
	}
	fine := func(message string) saying {
		return saying{condition: condition{ok: true, reason: ready, message: message}}
	}
	for _, d := range in.Domains {
		s := fine("trust domain " + compile.TrustDomain(d))
		s.identity = identity(d.Name)
		say(d, "domains", "Domain", d.Status.Conditions, sameIdentity(d.Status.Identity, s.identity), s)
	}
	for _, o := range now.policies {
		say(o, "policies", "Policy", o.Status.Conditions, true, fine("in force"))
	}
	for k, o := range now.links {
		say(o, "links", "Link", o.Status.Conditions, true, saying{condition: of(statuses.Links[k])})
	}
	waiting := map[subject]bool{} // for an address; they are written together with it
	for _, n := range needs.Addresses {
		waiting[subject{resourceOf[n.Kind], n.Key}] = true
	}
	for k, o := range now.services {
		st := statuses.Services[k]
		s := saying{condition: of(st.Status), backends: st.Backends}
		if !waiting[subject{"services", k}] {
			say(o, "services", "Service", o.Status.Conditions, o.Status.Backends == s.backends && !outOfDate(o), s)
		}
	}
	for k, o := range now.floating {
		st := statuses.FloatingIPs[k]
		s := saying{condition: of(st.Status), node: st.Node}
		if !waiting[subject{"floatingips", k}] {
			say(o, "floatingips", "FloatingIP", o.Status.Conditions, o.Status.Node == s.node, s)
		}
	}
	judgeTraffic(out.others, &now.traffic, statuses)
	return out
}

// of turns what the compiler says of an object into a condition.
func of(s compile.Status) condition {
	if s.Ready {
		return condition{ok: true, reason: ready, message: cmp.Or(s.Message, "in force")}
	}
	return condition{reason: "NotReady", message: cmp.Or(s.Message, "not in force yet")}
}

// resourceOf is the plural of the kinds that have addresses.
var resourceOf = map[string]string{kindService: "services", kindFloatingIP: "floatingips"}

// writer writes the status of objects, but for Networks.
type writer interface {
	// write says s of the object, and gives it addresses (nil: those that it
	// has). An object that is gone is no error.
	write(ctx context.Context, o subject, s *saying, addresses addresses) error
}

// write reads an object and writes its status if it shall say something new.
func (c clients) write(ctx context.Context, o subject, s *saying, addresses addresses) error {
	object, set := target(o.resource, s, addresses)
	client := c.moire
	if slices.Contains(gatewayResources, o.resource) {
		client = c.gateway
	}
	for range 10 {
		err := client.Get().NamespaceIfScoped(o.key.Project, o.key.Project != "").Resource(o.resource).Name(o.key.Name).Do(ctx).Into(object)
		if err == nil {
			if !set() {
				return nil
			}
			err = client.Put().NamespaceIfScoped(o.key.Project, o.key.Project != "").Resource(o.resource).Name(o.key.Name).SubResource("status").Body(object).Do(ctx).Error()
		}
		switch {
		case err == nil || apierrors.IsNotFound(err):
			return nil
		case !apierrors.IsConflict(err):
			return fmt.Errorf("control: write status of %s: %w", o, err)
		}
	}
	return fmt.Errorf("control: %s keeps changing; trying again", o)
}

// target is an empty object of a resource, and how its status is set once it
// was read; set reports whether that changed anything.
func target(resource string, s *saying, have addresses) (object runtime.Object, set func() bool) {
	if s != nil && s.traffic != nil {
		return trafficTarget(resource, s.traffic)
	}
	judged := func(list *[]metav1.Condition, generation int64) bool {
		return s != nil && setCondition(list, s.condition, generation)
	}
	switch resource {
	case "domains":
		o := &v1alpha1.Domain{}
		return o, func() bool {
			changed := judged(&o.Status.Conditions, o.Generation)
			if s != nil && !sameIdentity(o.Status.Identity, s.identity) {
				o.Status.Identity, changed = s.identity, true
			}
			return changed
		}
	case "policies":
		o := &v1alpha1.Policy{}
		return o, func() bool { return judged(&o.Status.Conditions, o.Generation) }
	case "links":
		o := &v1alpha1.Link{}
		return o, func() bool { return judged(&o.Status.Conditions, o.Generation) }
	case "services":
		o := &v1alpha1.Service{}
		return o, func() bool {
			changed := judged(&o.Status.Conditions, o.Generation)
			changed = have.service(o) || changed
			if s != nil && o.Status.Backends != s.backends {
				o.Status.Backends, changed = s.backends, true
			}
			return changed
		}
	default:
		o := &v1alpha1.FloatingIP{}
		return o, func() bool {
			changed := judged(&o.Status.Conditions, o.Generation)
			changed = have.floating(o) || changed
			if s != nil && o.Status.Node != s.node {
				o.Status.Node, changed = s.node, true
			}
			return changed
		}
	}
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
