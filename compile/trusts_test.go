package compile

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"maps"
	"math/big"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

// aRoot is the bundle of a new CA.
func aRoot(t *testing.T, name string) *v1alpha1.Bundle {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &v1alpha1.Bundle{Roots: [][]byte{der}}
}

// TestTrusts: a node has the roots of the Domains that it meets and of those
// that they federate with, and what one Domain was given of a foreign trust
// domain is not what another was given.
func TestTrusts(t *testing.T) {
	w := shop()
	w.domain("blue")
	w.domain("green")
	w.Projects["store"] = "blue"
	w.network("store", "main", "10.0.0.0/24")
	w.Bundles = map[string]*v1alpha1.Bundle{"red": aRoot(t, "red"), "blue": aRoot(t, "blue"), "green": aRoot(t, "green")}
	w.workload("shop", "web", "n1", "main", "10.0.0.5")
	w.workload("store", "web", "n2", "main", "10.0.0.5")
	w.attach("n1", "shop", "web", "main", 1, "10.0.0.5")
	w.attach("n2", "store", "web", "main", 1, "10.0.0.5")
	w.settle()
	names := func(s *snapshot.Snapshot) []string { return slices.Sorted(maps.Keys(s.Trusts)) }
	c := NewCompiler()
	one, _ := c.Compile(w.Input)
	if got := names(one["n1"]); !slices.Equal(got, []string{"red.moire"}) {
		t.Errorf("n1 has %v", got)
	}
	if got := one["n2"].Trusts["blue.moire"]; got.Domain != "blue" || !slices.EqualFunc(got.Roots, w.Bundles["blue"].Roots, slices.Equal[[]byte]) || len(got.Federates) > 0 {
		t.Errorf("n2 has %+v", got)
	}

	// One side alone changes nothing.
	federate := func(domain string, with ...v1alpha1.Federation) {
		d := w.Domains[domain].DeepCopy()
		d.Spec.Federates = with
		w.Domains[domain] = d
	}
	partner, other := aRoot(t, "partner"), aRoot(t, "other")
	federate("red", v1alpha1.Federation{Domain: "blue"}, v1alpha1.Federation{TrustDomain: "partner.org", Bundle: string(partner.PEM())})
	two, problems := c.Compile(w.Input)
	if got := names(two["n1"]); !slices.Equal(got, []string{"partner.org/red", "red.moire"}) || !slices.Contains(codes(problems), codeFederation) {
		t.Errorf("n1 has %v, problems %v", got, problems)
	}
	if one["n1"].Trusts["partner.org/red"].Name != "" || two["n2"] != one["n2"] {
		t.Error("a snapshot was changed after it was handed out, or one that nothing happened to is another")
	}
	federate("blue", v1alpha1.Federation{Domain: "red"}, v1alpha1.Federation{TrustDomain: "partner.org", Bundle: string(other.PEM())})
	three, problems := c.Compile(w.Input)
	if len(codes(problems)) > 0 {
		t.Errorf("problems %v", problems)
	}
	if got := names(three["n1"]); !slices.Equal(got, []string{"blue.moire", "partner.org/red", "red.moire"}) {
		t.Errorf("n1 has %v", got)
	}
	red, blue := three["n1"].Trusts["red.moire"], three["n1"].Trusts["blue.moire"]
	if !slices.Equal(red.Federates, []string{"blue.moire", "partner.org/red"}) || !slices.Equal(blue.Federates, []string{"partner.org/blue", "red.moire"}) {
		t.Errorf("red federates with %v, blue with %v", red.Federates, blue.Federates)
	}
	if got := three["n2"].Trusts["partner.org/blue"]; got.TrustDomain != "partner.org" || !slices.Equal(got.Roots[0], other.Roots[0]) {
		t.Errorf("blue sees partner.org as %v", got)
	}
	fresh, _ := Compile(w.Input)
	if dump(fresh) != dump(three) {
		t.Error("memory and none differ")
	}
	if red.Mark() == blue.Mark() || red.Mark() != one["n1"].Trusts["red.moire"].Mark() {
		t.Error("a mark names the roots, and nothing else")
	}
}

// TestOneOwner: of two Domains that want one trust domain the older has it, and
// nobody gives bundles for what is ours.
func TestOneOwner(t *testing.T) {
	w := shop()
	at := func(name, trust string, minute int64, federates ...v1alpha1.Federation) {
		w.Domains[name] = &v1alpha1.Domain{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.Unix(60*minute, 0)}, Spec: v1alpha1.DomainSpec{TrustDomain: trust, Federates: federates}}
	}
	at("red", "", 2)
	at("thief", "red.moire", 3, v1alpha1.Federation{Domain: "nobody"})
	at("node", "moire", 1)
	at("evil", "evil.example", 4, v1alpha1.Federation{TrustDomain: "red.moire", Bundle: string(aRoot(t, "fake").PEM())}, v1alpha1.Federation{Domain: "thief"}, v1alpha1.Federation{TrustDomain: "moire", Bundle: string(aRoot(t, "fake").PEM())})
	w.Bundles = map[string]*v1alpha1.Bundle{}
	for name := range w.Domains {
		w.Bundles[name] = aRoot(t, name)
		w.Projects["of-"+name] = name
		w.network("of-"+name, "main", "10.0.0.0/24")
		w.workload("of-"+name, "w", "n1", "main", "10.0.0.5")
		w.attach("n1", "of-"+name, "w", "main", 1, "10.0.0.5")
	}
	w.settle()
	snaps, problems := Compile(w.Input)
	trusts := snaps["n1"].Trusts
	if len(trusts) != 2 || trusts["red.moire"].Domain != "red" || trusts["evil.example"].Domain != "evil" || len(trusts["evil.example"].Federates) > 0 {
		t.Errorf("trusts %v", trusts)
	}
	var said []string
	for _, p := range problems {
		said = append(said, p.Object+" "+p.Field+" "+p.Code)
	}
	for _, want := range []string{
		"Domain thief spec.trustDomain MOI2061", "Domain node spec.trustDomain MOI2061", "Domain evil spec.federates[0].trustDomain MOI2062",
		"Domain evil spec.federates[1].domain MOI2062", "Domain evil spec.federates[2].trustDomain MOI2062",
	} {
		if !slices.Contains(said, want) {
			t.Errorf("nobody says %s; said is %v", want, said)
		}
	}
}
