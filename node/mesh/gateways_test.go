package mesh_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"moire.dev/moire/node/mesh"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
)

// gated makes web of red a Gateway with two listeners at one port, and one at
// another.
func gated(s *snapshot.Snapshot) {
	s.Gateways = map[snapshot.GatewayKey]snapshot.Gateway{}
	k := snapshot.GatewayKey{Project: "red-shop", Name: "edge"}
	tls := &l7.ServerTLS{Certificates: []string{"100/cert"}}
	s.Gateways[k] = snapshot.Gateway{GatewayKey: k, Attachment: snapshot.AttachmentKey{Project: "red-shop", Workload: "web", Network: "net"},
		Certificates: []l7.Certificate{{Name: "100/cert", Chain: "chain", Key: "key"}},
		Listeners: []snapshot.GatewayListener{
			{Listener: l7.Listener{Name: "100/a", Address: ":443", Hostname: "a.test", TLS: tls}, Routes: []string{"red-shop/api", "gone"}},
			{Listener: l7.Listener{Name: "100/b", Address: ":443", Hostname: "b.test", TLS: tls}},
			{Listener: l7.Listener{Name: "100/c", Address: ":80"}},
		}}
}

// edge is an interface that we made for a Gateway.
func edge(vni snapshot.VNI) mesh.Interface {
	i := web(vni)
	i.Gateway = true
	return i
}

// TestGateway: its listeners are at each of its addresses, in a view of their own,
// with their routes and certificates; and nobody else's Config has any of it.
func TestGateway(t *testing.T) {
	s := twins()
	gated(s)
	c := build(input(s, edge(red)))
	var got []string
	for _, l := range c.Listeners {
		if l.View == "100/red-shop/Gateway/edge" {
			got = append(got, l.Name+" "+l.Address)
		}
	}
	want := []string{"100/a@10.0.0.1 10.0.0.1:443", "100/a@fd00::1 [fd00::1]:443", "100/b@10.0.0.1 10.0.0.1:443", "100/b@fd00::1 [fd00::1]:443", "100/c@10.0.0.1 10.0.0.1:80", "100/c@fd00::1 [fd00::1]:80"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if w := c.Mesh.Workloads[0]; w.Gateway != "100/red-shop/Gateway/edge" || w.View != "100/red-shop" {
		t.Errorf("%+v", w)
	}
	for _, r := range c.Routes {
		if r.Name == "red-shop/api" && (!slices.Contains(r.Listeners, "100/a@10.0.0.1") || !slices.Contains(r.Listeners, "100/a@fd00::1")) {
			t.Errorf("%+v", r)
		}
	}
	if !slices.ContainsFunc(c.Certificates, func(c l7.Certificate) bool { return c.Name == "100/cert" && c.Key == "key" }) {
		t.Error("its certificate is missing")
	}
	i := edge(red)
	if why := mesh.Needs(s, &i); why != "Gateway red-shop/edge" {
		t.Errorf("it needs a proxy because of %q", why)
	}
	if ports := mesh.Ports(s, &i); !slices.Equal(ports, []uint16{80, 443}) {
		t.Errorf("ports %v", ports)
	}
	for _, other := range []mesh.Interface{edge(blue), web(red)} { // of the same name, and who came first
		if ports := mesh.Ports(s, &other); len(ports) != 0 {
			t.Errorf("%v is a Gateway", other.Key)
		}
	}
	for _, l := range build(input(s, web(blue))).Listeners {
		if l.View != "200/blue-shop" {
			t.Errorf("blue has %+v", l)
		}
	}
}

// TestGatewayChanges: a Builder notices a change of Gateways alone.
func TestGatewayChanges(t *testing.T) {
	var b mesh.Builder
	s := twins()
	first := b.Build(input(s, edge(red)))
	next := *s
	gated(&next)
	if second := b.Build(input(&next, edge(red))); len(second.Listeners) != len(first.Listeners)+6 || second.Mesh.Workloads[0].Gateway == "" {
		t.Errorf("%+v", second.Listeners)
	}
	if third := b.Build(input(s, edge(red))); len(third.Listeners) != len(first.Listeners) || third.Mesh.Workloads[0].Gateway != "" || len(third.Certificates) != 1 {
		t.Errorf("%+v", third)
	}
}
