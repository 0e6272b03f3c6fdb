package compile

import (
	"cmp"
	"slices"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// domain is what projects take from their Domain.
type domain struct {
	trust, mtls string
	authorizers []v1alpha1.Authorizer
}

func (d domain) equal(o domain) bool {
	return d.trust == o.trust && d.mtls == o.mtls && slices.Equal(d.authorizers, o.authorizers)
}

// modeOf reads a mode. A word that is none is strict: who wrote it wanted
// something, and validation has told what is wrong.
func modeOf(word string) snapshot.Mode {
	switch word {
	case "", v1alpha1.MTLSOff:
		return snapshot.Off
	case v1alpha1.MTLSPermissive:
		return snapshot.Permissive
	}
	return snapshot.Strict
}

// wantedMode is what is declared for a Workload: by itself, else its project,
// else the Domain.
func (d *draft) wantedMode(name string, w *v1alpha1.Workload) snapshot.Mode {
	if w != nil && w.Spec.MTLS != "" {
		return modeOf(w.Spec.MTLS)
	}
	if p := d.f.projectOf(name); p != nil {
		return p.mode
	}
	return snapshot.Off
}

// mode of an attachment. What is behind a tap has no proxy.
func (d *draft) mode(a *judged) snapshot.Mode {
	want := d.wantedMode(a.Project, a.declared)
	if !a.Tap {
		return want
	}
	d.proxyless(Key{a.Project, a.Workload}, want, "it is behind a tap")
	if d.taps == nil {
		d.taps = map[policy.Identity]Key{}
	}
	key := Key{a.Project, a.Workload}
	if old, known := d.taps[a.number]; !known || compareKeys(key, old) < 0 {
		d.taps[a.number] = key
	}
	return snapshot.Off
}

// proxyless says so when a Workload that cannot be in the mesh should be.
func (d *draft) proxyless(key Key, want snapshot.Mode, why string) {
	if want == snapshot.Strict {
		d.problem(warn(about(codeMode, workloadName(key), "spec.mtls", why+", where no proxy can be, so it is not in the mesh although its mode is strict: plain bytes go in and out",
			"write mtls: off to say that this is known")))
	}
}

// untold says so when a rule about requests protects a Workload that has no
// proxy: what the rule is about is refused.
func (d *jointDraft) untold(n policy.Identity, sets [2]policy.Set) {
	key, is := d.facts.base.taps[n]
	if !is {
		return
	}
	for _, s := range sets {
		for i := range s.Rules {
			if r := &s.Rules[i]; len(r.Requests) > 0 && !r.Audit {
				d.problem(warn(about(codeNoProxy, workloadName(key), "", cmp.Or(string(r.ID), "a rule")+" is about requests, and the Workload is behind a tap, where no proxy can be: what the rule is about is refused",
					"protect it by ports and peers")))
				return
			}
		}
	}
}
