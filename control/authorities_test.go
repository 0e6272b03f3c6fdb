package control

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
	"moire.dev/moire/identity"
	"moire.dev/moire/snapshot/wire"
)

// svid asks the control plane for one, as a node does.
func (a *agent) svid(spiffe string) (chain []*x509.Certificate, err error) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		a.t.Fatal(err)
	}
	out, err := a.client.Issue(a.t.Context(), &wire.IssueRequest{Svids: []*wire.SVIDRequest{{Spiffe: spiffe, Csr: csr}}})
	if err != nil {
		return nil, err
	}
	if text := out.Svids[0].GetError(); text != "" {
		return nil, errors.New(text)
	}
	for _, der := range out.Svids[0].GetChain() {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			a.t.Fatal(err)
		}
		chain = append(chain, c)
	}
	return chain, nil
}

// believes says whether the agent's snapshot makes it believe an SVID.
func (a *agent) believes(chain []*x509.Certificate, trust string) error {
	s, _ := a.now()
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, der := range s.Trusts[trust].Roots {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		roots.AddCert(c)
	}
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
	return err
}

func (r *running) annotate(domain string, annotations string) {
	r.t.Helper()
	err := r.clients.Load().moire.Patch(types.MergePatchType).Resource("domains").Name(domain).
		Body([]byte(`{"metadata":{"annotations":` + annotations + `}}`)).Do(r.t.Context()).Error()
	if err != nil {
		r.t.Fatal(err)
	}
}

// phase waits until the status of a Domain says so.
func (r *running) phase(domain, want string) v1alpha1.DomainIdentity {
	r.t.Helper()
	var d v1alpha1.Domain
	eventually(r.t, domain+" is "+want, func() error {
		if err := r.get("/apis/moire.dev/v1alpha1/domains/"+domain, &d); err != nil {
			return err
		}
		if id := d.Status.Identity; id == nil || id.Phase != want {
			return fmt.Errorf("status %+v", id)
		}
		return nil
	})
	return *d.Status.Identity
}

// TestDomainCA: a Domain gets a CA; nodes get certificates for what was granted
// there and for nothing else; a rotation waits for what nodes say that they have.
func TestDomainCA(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Config{Dir: dir + "/control", RunDir: dir + "/run"})
	r.create(domain("acme"), domain("other"), projectOf("shop", "acme"), projectOf("else", "other"), network("shop", "front", "10.0.0.0/24"), network("else", "front", "10.0.0.0/24"))
	a, b := newAgent(t, r, "node-a"), newAgent(t, r, "node-b")
	a.attach("shop", "web", "front")
	b.attach("else", "web", "front")
	const ours, theirs = "spiffe://acme.moire/ns/shop/sa/default", "spiffe://other.moire/ns/else/sa/default"
	var chain []*x509.Certificate
	eventually(t, "an SVID", func() (err error) {
		if chain, err = a.svid(ours); err != nil {
			return err
		}
		return a.believes(chain, "acme.moire")
	})
	if s, _ := a.now(); len(s.Trusts) != 1 {
		t.Errorf("node-a is told of %v", s.Trusts)
	}
	// Attacks: another node's identity, another Domain's, a node's, nobody's.
	for _, attack := range []string{theirs, "spiffe://acme.moire/ns/shop/sa/admin", "spiffe://moire/node/node-b", "spiffe://acme.moire", ""} {
		if _, err := a.svid(attack); err == nil || !strings.Contains(err.Error(), "granted") {
			t.Errorf("%q: %v", attack, err)
		}
	}
	if _, err := b.svid(ours); err == nil {
		t.Error("node-b has the identity of a Workload on node-a")
	}
	before := r.phase("acme", v1alpha1.PhaseSteady)
	if len(before.Roots) != 1 || before.Roots[0].State != v1alpha1.RootSigns || before.Roots[0].External || before.Bundle == "" {
		t.Errorf("status %+v", before)
	}

	a.mu.Lock()
	a.slow = true
	a.mu.Unlock()
	r.annotate("acme", `{"moire.dev/rotate-root":"1"}`)
	announced := r.phase("acme", v1alpha1.PhaseAnnounced)
	eventually(t, "both roots are known, and the former one signs", func() error {
		s, _ := a.now()
		if n := len(s.Trusts["acme.moire"].Roots); n != 2 {
			return fmt.Errorf("%d roots", n)
		}
		next, err := a.svid(ours)
		if err == nil && !next[1].Equal(chain[1]) {
			t.Error("the next root signs although it is not in force on node-a")
		}
		return err
	})
	eventually(t, "who is waited for", func() error {
		if announced = r.phase("acme", v1alpha1.PhaseAnnounced); !strings.Contains(announced.Message, "node-a") {
			return errors.New(announced.Message)
		}
		return nil
	})
	a.mu.Lock()
	a.slow = false
	a.mu.Unlock()
	a.report()
	switched := r.phase("acme", v1alpha1.PhaseSwitched)
	if len(switched.Roots) != 2 {
		t.Errorf("status %+v", switched)
	}
	eventually(t, "the next root signs", func() error {
		next, err := a.svid(ours)
		if err == nil && next[1].Equal(chain[1]) {
			return errors.New("the former one does")
		}
		if err != nil {
			return err
		}
		return a.believes(next, "acme.moire")
	})
	if err := a.believes(chain, "acme.moire"); err != nil {
		t.Errorf("what lives is not believed: %v", err)
	}
	r.annotate("acme", `{"moire.dev/rotate-order":"drop"}`)
	r.phase("acme", v1alpha1.PhaseSteady)
	eventually(t, "the former root is forgotten", func() error {
		if a.believes(chain, "acme.moire") == nil {
			return errors.New("it is not")
		}
		return nil
	})
	a.detach("web")
	eventually(t, "no identity without an attachment", func() error {
		if _, err := a.svid(ours); err == nil {
			return errors.New("there is one")
		}
		return nil
	})
}

// TestForgetCA: the CA of a Domain that is gone goes, after a while.
func TestForgetCA(t *testing.T) {
	now := time.Now()
	domains, err := identity.NewDomains(identity.DomainsConfig{Vault: identity.Files(t.TempDir())})
	if err != nil {
		t.Fatal(err)
	}
	a := newAuthorities(silent(), func() time.Time { return now }, func() {})
	a.domains = domains
	if err := a.load(); err != nil {
		t.Fatal(err)
	}
	with := &facts{in: &compile.Input{Domains: map[string]*v1alpha1.Domain{"acme": domain("acme")}}}
	without := &facts{in: &compile.Input{}}
	for i, step := range []struct {
		facts *facts
		want  int
		later time.Duration
	}{{with, 1, 0}, {without, 1, 0}, {with, 1, forgetCA}, {without, 1, 0}, {without, 1, forgetCA / 2}, {without, 0, forgetCA}} {
		now = now.Add(step.later)
		a.tendOnce(step.facts)
		if n := len(a.current.Load().by); n != step.want {
			t.Errorf("step %d: %d CAs", i, n)
		}
	}
}

// rotationBegins: both processes sign for one Domain with one root, and the next
// one is announced while a node lags behind.
func rotationBegins(t *testing.T, leader *running, a, b *agent) map[*agent][]*x509.Certificate {
	t.Helper()
	svids := map[*agent][]*x509.Certificate{}
	for _, n := range []*agent{a, b} {
		n.mu.Lock()
		n.slow = true
		n.mu.Unlock()
		eventually(t, "an SVID on "+n.name, func() (err error) {
			if svids[n], err = n.svid("spiffe://acme.moire/ns/shop/sa/default"); err == nil {
				err = n.believes(svids[n], "acme.moire")
			}
			return err
		})
	}
	if !svids[a][1].Equal(svids[b][1]) {
		t.Error("two processes, two CAs")
	}
	leader.annotate("acme", `{"moire.dev/rotate-root":"1"}`)
	leader.phase("acme", v1alpha1.PhaseAnnounced)
	return svids
}

// rotationEnds: another process goes on where the first one stopped. The node
// that is gone with the first one is not waited for, because somebody says so.
func rotationEnds(t *testing.T, leader *running, n *agent, before map[*agent][]*x509.Certificate) {
	t.Helper()
	leader.phase("acme", v1alpha1.PhaseAnnounced)
	n.mu.Lock()
	n.slow = false
	n.mu.Unlock()
	n.report()
	leader.annotate("acme", `{"moire.dev/rotate-order":"hurry"}`)
	leader.phase("acme", v1alpha1.PhaseSwitched)
	eventually(t, "the next root signs on "+n.name, func() error {
		chain, err := n.svid("spiffe://acme.moire/ns/shop/sa/default")
		if err == nil && chain[1].Equal(before[n][1]) {
			err = errors.New("the former one does")
		}
		if err != nil {
			return err
		}
		return n.believes(chain, "acme.moire")
	})
	if err := n.believes(before[n], "acme.moire"); err != nil {
		t.Error(err)
	}
}
