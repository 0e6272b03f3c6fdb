package node

import (
	"net/netip"
	"testing"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

func TestEffective(t *testing.T) {
	c := &fakeControl{}
	mac := snapshot.MAC{2, 0, 3, 0, 0, 1}
	ip := netip.MustParseAddr("10.0.0.65")
	own := &attachment{Key: webKey, VNI: 100, Addrs: []netip.Addr{ip}, MAC: mac, Account: "default", Labels: []snapshot.Label{{Key: "app", Value: "web"}}}
	at := snapshot.Addr{VNI: 100, IP: ip}
	with := func(e snapshot.Endpoint) *snapshot.Snapshot {
		return world(c, func(s *snapshot.Snapshot) { e.Addr = at; s.Endpoints[at] = e })
	}
	is := snapshot.Endpoint{Project: "shop", Workload: "web", MAC: mac, Identity: webIdentity, Node: "n1"}
	earlier, elsewhere := is, is
	earlier.MAC, earlier.Identity = snapshot.MAC{2, 0, 3, 0, 0, 9}, 99
	elsewhere.Node = "n2"
	for _, test := range []struct {
		name string
		snap *snapshot.Snapshot
		own  []*attachment
		want policy.Identity // of the endpoint; 0: there is none
		same bool
	}{
		{"known", with(is), []*attachment{own}, webIdentity, true},
		{"not known yet", world(c, nil), []*attachment{own}, webIdentity, false},
		{"gone here", with(is), nil, 0, false},
		{"an earlier one of the same name", with(earlier), []*attachment{own}, webIdentity, false},
		{"moved away", with(elsewhere), []*attachment{own}, webIdentity, true},
		{"refused", world(c, func(s *snapshot.Snapshot) {
			s.Grants[webKey] = snapshot.Grant{AttachmentKey: webKey, Error: "no"}
		}), []*attachment{own}, 0, true},
		{"declared as somebody else", world(c, func(s *snapshot.Snapshot) {
			s.Grants[webKey] = snapshot.Grant{AttachmentKey: webKey, VNI: 100, Identity: 55}
		}), []*attachment{own}, 0, true},
		{"network gone", world(c, func(s *snapshot.Snapshot) { delete(s.Networks, 100) }), []*attachment{own}, 0, true},
		{"vni belongs to another now", world(c, func(s *snapshot.Snapshot) {
			n := s.Networks[100]
			n.Project = "other"
			s.Networks[100] = n
		}), []*attachment{own}, 0, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := test.snap.Version()
			got := effective(test.snap, test.own)
			if got.Endpoints[at].Identity != test.want {
				t.Errorf("endpoint %+v, want identity %d", got.Endpoints[at], test.want)
			}
			if (got == test.snap) != test.same {
				t.Errorf("same snapshot: %v", got == test.snap)
			}
			if test.snap.Version() != before {
				t.Error("the snapshot was changed")
			}
		})
	}
}

// TestEffectiveLinked: how a linked Network sees an attachment of this node
// stays as long as the attachment does.
func TestEffectiveLinked(t *testing.T) {
	c := &fakeControl{}
	mac := snapshot.MAC{2, 0, 3, 0, 0, 1}
	home := snapshot.Addr{VNI: 100, IP: netip.MustParseAddr("10.0.0.65")}
	own := &attachment{Key: webKey, VNI: 100, Addrs: []netip.Addr{home.IP}, MAC: mac, Account: "default"}
	there := snapshot.Addr{VNI: 101, IP: netip.MustParseAddr("100.64.0.65")}
	snap := world(c, func(s *snapshot.Snapshot) {
		e := snapshot.Endpoint{Addr: home, Project: "shop", Workload: "web", MAC: mac, Identity: webIdentity, Node: "n1"}
		s.Endpoints[home] = e
		e.Addr, e.Home = there, home
		s.Endpoints[there] = e
	})
	if _, ok := effective(snap, []*attachment{own}).Endpoints[there]; !ok {
		t.Error("the linked Network does not see it")
	}
	if _, ok := effective(snap, nil).Endpoints[there]; ok {
		t.Error("the linked Network still sees what is gone")
	}
}
