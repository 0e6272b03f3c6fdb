package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// A snapshot is held when it takes away more than massDelete percent of the
// things that the node knows, and at least manyThings of them; or the Network
// of more than half of at least manyInterfaces. Either is more likely an
// accident of the control plane (an empty or older store) than anybody's wish.
const (
	massDelete     = 30
	manyThings     = 10
	manyInterfaces = 8
)

// wouldLose says so when a snapshot takes away that much.
func wouldLose(old, new *snapshot.Snapshot, present []*attachment) string {
	had, lost := 0, 0
	for _, a := range present {
		if _, ok := old.Networks[a.VNI]; !ok {
			continue
		}
		had++
		if _, ok := new.Networks[a.VNI]; !ok {
			lost++
		}
	}
	if had >= manyInterfaces && 2*lost > had {
		return fmt.Sprintf("would disconnect %d of %d interfaces of this node", lost, had)
	}
	was, is := things(without(old, leftBehind(old, new, present))), things(new)
	// What left this very node is no loss: it is why the rows go.
	here := map[string]bool{}
	for _, a := range present {
		here["Workload "+a.Key.Project+"/"+a.Key.Workload] = true
	}
	gone := map[string]int{}
	had, lost = 0, 0
	for t, own := range was {
		if own && !here[t] {
			continue
		}
		had++
		if _, ok := is[t]; !ok {
			lost++
			kind, _, _ := strings.Cut(t, " ")
			gone[kind]++
		}
	}
	if lost < manyThings || 100*lost <= massDelete*had {
		return ""
	}
	var words []string
	for _, kind := range slices.Sorted(maps.Keys(gone)) {
		words = append(words, fmt.Sprintf("%d %s", gone[kind], kind))
	}
	return fmt.Sprintf("would remove %d of the %d things that this node knows (%s)", lost, had, strings.Join(words, ", "))
}

// leftBehind are the Networks that a snapshot takes away in which this node has no
// interface any more: that is why they go, with all that is in them.
func leftBehind(old, new *snapshot.Snapshot, present []*attachment) map[snapshot.VNI]bool {
	out := map[snapshot.VNI]bool{}
	for vni := range old.Networks {
		_, stays := new.Networks[vni]
		here := slices.ContainsFunc(present, func(a *attachment) bool { return a.VNI == vni })
		if !stays && !here {
			out[vni] = true
		}
	}
	return out
}

// without is a snapshot without what is in some Networks, as far as things counts
// it.
func without(s *snapshot.Snapshot, left map[snapshot.VNI]bool) *snapshot.Snapshot {
	if len(left) == 0 {
		return s
	}
	out := *s
	out.Networks, out.Endpoints, out.Services = maps.Clone(s.Networks), maps.Clone(s.Endpoints), maps.Clone(s.Services)
	out.Chains, out.Policies, out.Routes = maps.Clone(s.Chains), maps.Clone(s.Policies), maps.Clone(s.Routes)
	maps.DeleteFunc(out.Networks, func(vni snapshot.VNI, _ snapshot.Network) bool { return left[vni] })
	maps.DeleteFunc(out.Endpoints, func(a snapshot.Addr, _ snapshot.Endpoint) bool { return left[a.VNI] })
	maps.DeleteFunc(out.Services, func(k snapshot.ServiceKey, _ snapshot.Service) bool { return left[k.Addr.VNI] })
	maps.DeleteFunc(out.Chains, func(k snapshot.ChainKey, _ snapshot.Chain) bool { return left[k.VNI] })
	maps.DeleteFunc(out.Policies, func(k snapshot.PolicyKey, _ policy.Set) bool { return left[k.VNI] })
	maps.DeleteFunc(out.Routes, func(name string, _ l7.Route) bool {
		vni, _, _ := strings.Cut(name, "/") // see snapshot.RouteObject
		n, err := strconv.ParseUint(vni, 10, 32)
		return err == nil && left[snapshot.VNI(n)]
	})
	return &out
}

// things are the objects that the rows of a snapshot come from, of all tables:
// one object may have many rows. A Trust comes and goes with the Networks of its
// Domain, and is not counted beside them. Those marked true are Workloads that are on
// this node alone.
func things(s *snapshot.Snapshot) map[string]bool {
	out := map[string]bool{}
	for _, n := range s.Networks {
		out["Network "+n.Project+"/"+n.Name] = false
	}
	for name := range s.Nodes {
		out["Node "+name] = false
	}
	for _, e := range s.Endpoints {
		w := "Workload " + e.Project + "/" + e.Workload
		own, seen := out[w]
		out[w] = e.Node == s.Node && (own || !seen)
	}
	for _, v := range s.Services {
		kind := "Service "
		if v.Floating {
			kind = "FloatingIP "
		}
		out[kind+v.Project+"/"+v.Name] = false
	}
	for k := range s.Chains {
		out["Link "+k.Link] = false
	}
	for a := range s.Externals {
		out["External "+a.String()] = false
	}
	for name := range s.Routes {
		out["Route "+name] = false
	}
	for k := range s.Gateways {
		out["Gateway "+k.Project+"/"+k.Name] = false
	}
	for _, set := range s.Policies {
		for i := range set.Rules {
			// policy/<project>/<name>/...
			if p := strings.SplitN(string(set.Rules[i].ID), "/", 4); len(p) == 4 && p[0] == "policy" {
				out["Policy "+p[1]+"/"+p[2]] = false
			}
		}
	}
	return out
}

// locksOut: the firewall would be enforced, no rule allows SSH from anywhere,
// and nobody has accepted that.
func locksOut(f *snapshot.Firewall) bool {
	if f == nil || f.Audit || f.AcceptLockOut {
		return false
	}
	return !slices.ContainsFunc(f.Allow, func(r snapshot.FirewallRule) bool {
		return len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(p snapshot.HostPort) bool {
			return (p.Protocol == policy.TCP || p.Protocol == 0) && p.First <= 22 && 22 <= p.Last
		})
	})
}

// harmless is the snapshot with a firewall that only counts when the one that
// it has would lock everybody out. Everything else stays as it is: a mistake in
// the firewall must not keep the rest of the node from following.
func (l *loop) harmless(s *snapshot.Snapshot) *snapshot.Snapshot {
	l.lockout = ""
	if !locksOut(s.Firewall) || l.accepted.Firewall == firewallText(s.Firewall) {
		return s
	}
	l.lockout = "no rule of the firewall allows SSH (tcp/22), so it only counts what it would drop; add a rule, or run 'moire-node consent --accept-risk=" + local.RiskLockOut + "' on the node"
	out, f := *s, *s.Firewall
	f.Audit = true
	out.Firewall = &f
	return &out
}

// firewallText says what a firewall is, to know it again.
func firewallText(f *snapshot.Firewall) string { return fmt.Sprintf("%+v", f.Allow) }

// accepted is what somebody on this node has consented to, on disk.
type accepted struct {
	// Version that may remove most of what is there.
	Version snapshot.Version
	// Firewall that may lock out.
	Firewall string
}

func (l *loop) acceptedFile() string { return filepath.Join(l.cfg.Dir, "accepted") }

func (l *loop) loadAccepted() error {
	b, err := os.ReadFile(l.acceptedFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, &l.accepted)
	}
	if err != nil {
		return fmt.Errorf("what was consented to cannot be read, so nothing was: %w", err)
	}
	return nil
}

// consent accepts a risk, and remembers that.
func (l *loop) consent(c *local.Consent) error {
	next := l.accepted
	switch c.Risk {
	case local.RiskMassDelete, "":
		if l.held == nil {
			return errors.New("no snapshot waits for consent")
		}
		v := l.held.Version()
		if c.Version != "" && c.Version != string(v) {
			return fmt.Errorf("snapshot %s waits for consent, not %s", v, c.Version)
		}
		next.Version = v
	case local.RiskLockOut:
		s := l.newest()
		if l.held != nil {
			s = l.held
		}
		if !locksOut(s.Firewall) {
			return errors.New("the firewall of this node locks nobody out")
		}
		next.Firewall = firewallText(s.Firewall)
	default:
		return fmt.Errorf("there is no risk %q; it is %s or %s", c.Risk, local.RiskMassDelete, local.RiskLockOut)
	}
	b, err := json.Marshal(next)
	if err == nil {
		err = writeDurable(l.acceptedFile(), b)
	}
	if err != nil {
		return fmt.Errorf("remember the consent: %w", err)
	}
	l.accepted, l.dirty = next, true
	if l.held != nil && l.held.Version() == next.Version {
		l.receive(l.held)
	}
	return nil
}

// waits says what waits for consent; "": nothing.
func (l *loop) waits() string {
	if l.held != nil {
		return l.heldWhy
	}
	return l.lockout
}
