package control

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
	"moire.dev/moire/explain"
	"moire.dev/moire/snapshot"
)

// noCA: no Domain has a CA.
func noCA(string) *v1alpha1.DomainIdentity { return nil }

func TestConditions(t *testing.T) {
	in := &compile.Input{
		Domains: map[string]*v1alpha1.Domain{"acme": domain("acme")},
		Networks: map[compile.Key]*v1alpha1.Network{
			{Project: "p", Name: "good"}: aNetwork("p", "good"), {Project: "p", Name: "bad"}: aNetwork("p", "bad"),
			{Project: "p", Name: "new"}: aNetwork("p", "new"), {Project: "p", Name: "warned"}: aNetwork("p", "warned")},
	}
	for k, n := range in.Networks {
		if k.Name != "new" {
			n.Status.VNI = 7
		}
	}
	problems := first([]v1alpha1.Problem{
		{Object: "Network p/bad", Code: "MOI3001", Reason: "a warning", Warning: true},
		{Object: "Network p/bad", Code: "MOI2001", Field: "spec.x", Reason: "it is wrong", Fix: "mend it"},
		{Object: "Network p/bad", Code: "MOI2002", Reason: "later"},
		{Object: "Network p/warned", Reason: "odd", Warning: true},
		{Object: "Policy p/lame", Code: "MOI3002", Reason: "follows from it", Warning: true},
		{Object: "Policy p/lame", Code: "MOI3001", Reason: "selects nobody", Fix: "correct it", Warning: true},
	})
	policies := map[compile.Key]*v1alpha1.Policy{}
	for _, name := range []string{"fine", "lame"} {
		policies[compile.Key{Project: "p", Name: name}] = &v1alpha1.Policy{ObjectMeta: metav1.ObjectMeta{Namespace: "p", Name: name}}
	}
	now := newest{policies: policies}
	said := conditions(in, now, compile.Needs{}, problems, compile.Statuses{}, noCA)
	networks, acme := said.networks, subject{"domains", compile.Key{Name: "acme"}}
	for name, want := range map[string]condition{"fine": {true, "Ready", "in force"}, "lame": {true, "MOI3001", "selects nobody; correct it"}} {
		k := compile.Key{Project: "p", Name: name}
		if got := said.others[subject{"policies", k}]; got.condition != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
		setCondition(&policies[k].Status.Conditions, want, 1)
	}
	for name, want := range map[string]condition{
		"good": {true, "Ready", "network id 7"}, "bad": {false, "MOI2001", "spec.x: it is wrong; mend it"},
		"new":    {false, "Allocating", "waiting for a network id; the control plane gives one within seconds"},
		"warned": {true, "Problem", "odd"},
	} {
		if got := networks[compile.Key{Project: "p", Name: name}]; got != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
	if said.others[acme].message != "trust domain acme.moire" {
		t.Errorf("domains: %+v", said.others)
	}
	for k, n := range in.Networks {
		setCondition(&n.Status.Conditions, networks[k], 1)
	}
	setCondition(&in.Domains["acme"].Status.Conditions, said.others[acme].condition, 1)
	if said = conditions(in, now, compile.Needs{}, problems, compile.Statuses{}, noCA); len(said.networks)+len(said.others) != 0 {
		t.Errorf("what is written already is written again: %+v", said)
	}
}

// TestStatusIsNotIntent: a Policy of which only the status changed is the
// object that the compiler knows; what was written in it is seen all the same.
func TestStatusIsNotIntent(t *testing.T) {
	k := compile.Key{Project: "p", Name: "web"}
	of := func(uid types.UID, generation int64, reason string) map[compile.Key]*v1alpha1.Policy {
		return map[compile.Key]*v1alpha1.Policy{k: {ObjectMeta: metav1.ObjectMeta{UID: uid, Generation: generation},
			Status: v1alpha1.PolicyStatus{Conditions: []metav1.Condition{{Reason: reason}}}}}
	}
	last := of("u", 1, "a")
	for name, tt := range map[string]struct {
		newest map[compile.Key]*v1alpha1.Policy
		kept   bool
	}{"status": {of("u", 1, "b"), true}, "spec": {of("u", 2, "a"), false}, "made anew": {of("v", 1, "a"), false}} {
		if got := declared(last, tt.newest, nil); (got[k] == last[k]) != tt.kept {
			t.Errorf("%s: kept %v", name, !tt.kept)
		}
	}
	if got := declared(last, nil, nil); len(got) != 0 {
		t.Errorf("a deleted Policy is still there: %v", got)
	}
}

// tells: Policies and Networks say themselves what is wrong with them.
func tells(t *testing.T, c *running, a *agent) {
	dangling := &v1alpha1.Policy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "dangling"}, Spec: v1alpha1.PolicySpec{
		Subject: &v1alpha1.Subject{Labels: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
		Ingress: []v1alpha1.Rule{{Action: v1alpha1.ActionAllow}, {Action: v1alpha1.ActionAllow, From: []v1alpha1.Peer{{Network: "missing"}}}}}}
	nobody := &v1alpha1.Policy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "nobody"}, Spec: v1alpha1.PolicySpec{
		Subject: &v1alpha1.Subject{Labels: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "nobody"}}},
		Ingress: []v1alpha1.Rule{{Action: v1alpha1.ActionAllow}}}}
	broken := &v1alpha1.Policy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "broken"}, Spec: v1alpha1.PolicySpec{
		Subject: &v1alpha1.Subject{Labels: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpIn}}}},
		Ingress: []v1alpha1.Rule{{Action: v1alpha1.ActionAllow}}}}
	c.create(dangling, nobody, broken, network("shop", "tiny", "10.9.0.0/30"))
	says := func(path string, status metav1.ConditionStatus, reason, message string) {
		t.Helper()
		eventually(t, path, func() error {
			var o struct {
				Status struct{ Conditions []metav1.Condition }
			}
			if err := c.get("/apis/moire.dev/v1alpha1/namespaces/shop/"+path, &o); err != nil {
				return err
			}
			if s := o.Status.Conditions; len(s) != 1 || s[0].Type != ready || s[0].Status != status || s[0].Reason != reason || !strings.Contains(s[0].Message, message) {
				return fmt.Errorf("it says %+v", s)
			}
			return nil
		})
	}
	says("policies/db", metav1.ConditionTrue, ready, "in force")
	says("policies/dangling", metav1.ConditionTrue, "MOI2006", "missing")
	says("policies/broken", metav1.ConditionFalse, "MOI2024", "the label selector is not valid")
	says("policies/nobody", metav1.ConditionTrue, "MOI3001", "")
	// The one address of a /30 goes to the first; the second is refused at once.
	a.attach("shop", "first", "tiny")
	says("networks/tiny", metav1.ConditionTrue, "MOI2016", "IPv4 addresses to give out: 1, and all of them are in use; add a prefix")
	a.attach("shop", "second", "tiny")
	eventually(t, "a refusal", func() error {
		s, _ := a.now()
		g := s.Grants[snapshot.AttachmentKey{Project: "shop", Workload: "second", Network: "tiny"}]
		if !strings.Contains(g.Error, "Network shop/tiny has no free IPv4 address") || !strings.Contains(g.Error, "add a prefix") {
			return fmt.Errorf("got %+v", g)
		}
		return nil
	})
	says("networks/tiny", metav1.ConditionFalse, "MOI2016", "wait in vain")
	a.detach("second", "first")
	says("networks/tiny", metav1.ConditionTrue, ready, "network id")
	for _, p := range []*v1alpha1.Policy{dangling, nobody, broken} {
		if err := c.admin().Delete().Namespace("shop").Resource("policies").Name(p.Name).Do(t.Context()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "they are gone", func() error {
		var got explain.Answer
		err := c.get("/apis/moire.dev/v1alpha1/namespaces/shop/explain?from=web&to=db&port=80&output=json", &got)
		if err == nil && got.Rule != "isolated/shop/db/ingress" {
			err = fmt.Errorf("the rule is %s", got.Rule)
		}
		return err
	})
}
