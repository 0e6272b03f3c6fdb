package control

import (
	"fmt"
	"net/netip"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

func (r *running) service(name string) (s v1alpha1.Service, err error) {
	err = r.get("/apis/moire.dev/v1alpha1/namespaces/shop/services/"+name, &s)
	return s, err
}

// row finds what a node was told of a Service or FloatingIP.
func (a *agent) row(name string) (snapshot.Service, error) {
	s, _ := a.now()
	for _, v := range s.Services {
		if v.Name == name {
			return v, nil
		}
	}
	return snapshot.Service{}, fmt.Errorf("%s does not know %s", a.name, name)
}

// services: addresses are given and said, names outside are resolved, a Link
// and a FloatingIP say how they are, and backends of nodes that are away go.
func services(t *testing.T, c *running, a, b *agent) {
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "shop", Name: name} }
	front, ports := []v1alpha1.ServiceNetwork{{Network: "front"}}, []v1alpha1.ServicePort{{Port: 80, TargetPort: 8080}}
	pool := network("shop", "pool", "203.0.113.0/24")
	pool.Spec.Floating = []string{"203.0.113.16/28"}
	pool.Spec.Outside = &v1alpha1.Outside{}
	c.create(pool, network("shop", "side", "10.9.0.0/24"), &v1alpha1.Service{ObjectMeta: meta("all"), Spec: v1alpha1.ServiceSpec{Networks: front, Ports: ports, Selector: &metav1.LabelSelector{}}},
		&v1alpha1.Service{ObjectMeta: meta("named"), Spec: v1alpha1.ServiceSpec{Networks: []v1alpha1.ServiceNetwork{{Network: "front", Addresses: []string{"10.0.0.200"}}}, Ports: ports, Selector: &metav1.LabelSelector{}}},
		&v1alpha1.Service{ObjectMeta: meta("mail"), Spec: v1alpha1.ServiceSpec{Networks: []v1alpha1.ServiceNetwork{{Network: "pool"}}, Ports: ports, ExternalName: "mail.example.com"}},
		&v1alpha1.Service{ObjectMeta: meta("ghost"), Spec: v1alpha1.ServiceSpec{Networks: []v1alpha1.ServiceNetwork{{Network: "pool"}}, Ports: ports, ExternalName: "ghost.example.com"}},
		&v1alpha1.FloatingIP{ObjectMeta: meta("float"), Spec: v1alpha1.FloatingIPSpec{Pool: v1alpha1.NetworkRef{Network: "pool"}, Targets: []v1alpha1.FloatingTarget{{Workload: "web", Weight: 1}}}},
		&v1alpha1.Link{ObjectMeta: meta("both"), Spec: v1alpha1.LinkSpec{Ends: []v1alpha1.LinkEnd{{Network: "front"}, {Network: "side"}}}})
	a.attach("shop", "guest", "pool")
	defer func() {
		a.detach("guest")
		eventually(t, "the guest is gone", func() error {
			if _, err := a.endpoint("shop", "guest"); err == nil {
				return fmt.Errorf("node-a still knows it")
			}
			return nil
		})
	}()
	eventually(t, "Service all has an address and two backends", func() error {
		s, err := c.service("all")
		if err != nil || len(s.Status.Addresses) != 1 || s.Status.Backends != "2/2" || !condition0(s.Status.Conditions).ok {
			return fmt.Errorf("status is %+v, %v", s.Status, err)
		}
		for _, n := range []*agent{a, b} {
			if row, err := n.row("all"); err != nil || row.Addr.IP.String() != s.Status.Addresses[0].Address || len(row.Backends) != 2 || row.Backends[0].Port != 8080 {
				return fmt.Errorf("row is %+v, %v", row, err)
			}
		}
		return nil
	})
	eventually(t, "the others", func() error {
		named, err := c.service("named")
		if err != nil || len(named.Status.Addresses) != 1 || named.Status.Addresses[0].Address != "10.0.0.200" {
			return fmt.Errorf("named is %+v, %v", named.Status, err)
		}
		ghost, err := c.service("ghost")
		if got := condition0(ghost.Status.Conditions); err != nil || got.ok || got.reason != codeUnresolved {
			return fmt.Errorf("ghost is %+v, %v", ghost.Status, err)
		}
		var f v1alpha1.FloatingIP
		if err := c.get("/apis/moire.dev/v1alpha1/namespaces/shop/floatingips/float", &f); err != nil || f.Status.Address != "203.0.113.16" || !condition0(f.Status.Conditions).ok {
			return fmt.Errorf("float is %+v, %v", f.Status, err)
		}
		var l v1alpha1.Link
		if err := c.get("/apis/moire.dev/v1alpha1/namespaces/shop/links/both", &l); err != nil || !condition0(l.Status.Conditions).ok {
			return fmt.Errorf("both is %+v, %v", l.Status, err)
		}
		mail, err := c.service("mail")
		if err != nil || len(mail.Status.Addresses) != 1 {
			return fmt.Errorf("mail is %+v, %v", mail.Status, err)
		}
		if row, err := a.row("mail"); err != nil || len(row.Backends) != 1 || row.Backends[0].Addr.IP != netip.MustParseAddr("198.51.100.25") {
			return fmt.Errorf("row of mail is %+v, %v", row, err)
		}
		return nil
	})
	var n v1alpha1.Network
	if err := c.get("/apis/moire.dev/v1alpha1/namespaces/shop/networks/front", &n); err != nil || len(n.Status.Taken) != 2 {
		t.Errorf("front says %+v, %v", n.Status.Taken, err)
	}
}

// condition0 is what Ready says.
func condition0(list []metav1.Condition) condition {
	for _, c := range list {
		if c.Type == ready {
			return condition{ok: c.Status == metav1.ConditionTrue, reason: c.Reason, message: c.Message}
		}
	}
	return condition{}
}
