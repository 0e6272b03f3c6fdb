package lab

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"

	"moire.dev/moire/explain"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/lab/scenario"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// Check sends real traffic and compares what came through, and what records
// say of it, with what is expected. After a change of the world, which nodes
// have to notice first, it tries for a while.
func (r *real) Check(c *scenario.Check) error {
	err := r.check(c)
	for err != nil && time.Now().Before(r.patience) {
		time.Sleep(300 * time.Millisecond)
		err = r.check(c)
	}
	return err
}

func (r *real) check(c *scenario.Check) error {
	if c.Problem != "" {
		return nil // compile's own matter: stage 1
	}
	a, err := r.explain(c)
	if err != nil {
		return err
	}
	if a.Error != "" {
		return c.Compare(scenario.Seen{Verdict: scenario.Unattached})
	}
	if (c.To == snapshot.NameServer4.String() || c.To == snapshot.NameServer6.String()) && c.Port == 53 {
		return r.served(c, a)
	}
	to, ok := sentTo(a)
	if isName(c.To) {
		if to, err = r.resolve(c, a); err != nil {
			return err
		}
		ok, a.Sent = true, to.String()
	}
	if !ok || a.Source.Address.Is6() != to.Is6() {
		return nil // no such packet can be written, or it is for somebody else there
	}
	if r.external[a.Source.Node] || a.Destination != nil && r.external[a.Destination.Node] {
		return nil // nobody is there; datapath shows a Linux vxlan device as the other end
	}
	return r.probe(c, a, to)
}

// sentTo is the address that the source sends to. A Workload of another Network
// that nothing leads to has none.
func sentTo(a explain.Answer) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(a.Sent); err == nil {
		return ap.Addr(), true
	}
	to, err := netip.ParseAddr(a.Sent)
	return to, err == nil
}

// arrivals are where the packet may arrive, and at which ports there.
func (r *real) arrivals(c *scenario.Check, a explain.Answer, to netip.Addr) []Listener {
	var out []Listener
	for _, w := range scenario.Ways(a) {
		l := Listener{Port: c.Port}
		there := to
		if ap, err := netip.ParseAddrPort(w.Backend); err == nil {
			there, l.Port = ap.Addr(), ap.Port()
		}
		switch {
		case w.Workload != "":
			l.Netns = r.netns(w.Workload)
		case a.Destination != nil && a.Destination.VNI == uint32(snapshot.Outside):
			l.Netns, l.Addr = r.outside, there // replies come from it
		}
		if l.Netns != "" && !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out
}

func (r *real) probe(c *scenario.Check, a explain.Answer, to netip.Addr) error {
	p := Probe{From: r.netns(a.Source.Project + "/" + a.Source.Workload), Source: a.Source.Address, Dest: to, Protocol: protocols[c.Protocol], Port: c.Port, Listen: r.arrivals(c, a, to)}
	if a.Source.Workload == "" {
		p.From = r.outside
	}
	p.Wait = 250 * time.Millisecond // what does not come is recorded, too
	if c.Verdict == scenario.Allow {
		p.Wait = 3 * time.Second
	}
	began := time.Now()
	time.Sleep(20 * time.Millisecond) // times of records are exact to 4 ms
	came, err := p.Run()
	if err != nil {
		return fmt.Errorf("line %d: %s: %w", c.Line, c.Text, err)
	}
	if came != (c.Verdict == scenario.Allow) && c.Verdict != scenario.Depends {
		return fmt.Errorf("line %d: %s: the packet came through: %v", c.Line, c.Text, came)
	}
	// When nobody answers the question for the MAC of a neighbour, nothing is sent.
	unsent := len(p.Listen) == 0 && p.Dest.Is4() == p.Source.Is4() && r.onLink(p)
	tries := 30
	if unsent {
		tries = 3
	}
	for range tries {
		if err = r.compare(c, a, began); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	if unsent {
		return nil
	}
	return err
}

// onLink: the source thinks that the destination is its neighbour.
func (r *real) onLink(p Probe) bool {
	neighbour := false
	InNetns(p.From, func() error {
		out, err := exec.Command("ip", "route", "get", p.Dest.String()).CombinedOutput()
		neighbour = err == nil && !strings.Contains(string(out), " via ")
		return nil
	})
	return neighbour
}

// compare looks for records of the probe that say what is expected.
func (r *real) compare(c *scenario.Check, a explain.Answer, began time.Time) error {
	out, err := r.lab.moire("flows", "--since", began.UTC().Format(time.RFC3339Nano), "-o", "json", "--limit", "1000")
	if err != nil {
		return fmt.Errorf("moire flows: %w\n%s", err, out)
	}
	n := newNotes(c, a)
	var taken []string
	for line := range strings.Lines(out) {
		var x record.Record
		if json.Unmarshal([]byte(line), &x) == nil && !x.Time.Before(began) && n.about(x) {
			n.note(x)
			taken = append(taken, line)
		}
	}
	if err := c.Compare(n.seen); err != nil {
		return fmt.Errorf("records: %w\n%s", err, strings.Join(taken, ""))
	}
	return nil
}

// notes gather what records say of one probe.
type notes struct {
	c    *scenario.Check
	a    explain.Answer
	seen scenario.Seen
	// ports of the destination, under whichever address.
	ports map[netip.Addr][]uint16
}

func newNotes(c *scenario.Check, a explain.Answer) *notes {
	n := &notes{c: c, a: a, seen: scenario.Seen{Verdict: c.Verdict}, ports: map[netip.Addr][]uint16{}}
	texts, ports := []string{a.Sent, a.Backend}, []uint16{c.Port}
	for _, w := range a.Ways {
		texts = append(texts, w.Backend)
	}
	for _, text := range texts {
		if ap, err := netip.ParseAddrPort(text); err == nil {
			n.ports[ap.Addr()], ports = append(n.ports[ap.Addr()], ap.Port()), append(ports, ap.Port())
		} else if addr, err := netip.ParseAddr(text); err == nil {
			n.ports[addr] = append(n.ports[addr], c.Port)
		}
	}
	if d := a.Destination; d != nil && n.ports[d.Address] == nil {
		n.ports[d.Address] = ports
	}
	return n
}

// about: the record is of the probe.
func (n *notes) about(x record.Record) bool {
	ports, known := n.ports[x.Destination.Address]
	if x.Protocol != n.c.Protocol || !known || n.c.Port != 0 && !slices.Contains(ports, x.Destination.Port) {
		return false
	}
	return n.near(x) || len(n.a.Via) > 0 && (x.Source.Address == n.a.Source.Address || x.Source.Address.String() == n.a.TranslatedSource)
}

// near: the record is of the session as its source sees it; else it is of one
// behind a function.
func (n *notes) near(x record.Record) bool {
	return x.Source.VNI == n.a.Source.VNI && x.Source.Address == n.a.Source.Address
}

// note adds what one record says.
func (n *notes) note(x record.Record) {
	seen := &n.seen
	rule := policy.RuleID(x.Rule)
	if x.Drop != "" {
		rule = policy.RuleID("closed/" + x.Drop)
	}
	if x.Verdict == record.Deny {
		seen.Rule = rule
	}
	switch {
	case x.Observer == record.AtDestination:
		if rule != "" { // a function judges nothing
			seen.Ingress = rule
		}
	case x.Direction == policy.Egress.String() && n.near(x):
		seen.Egress = rule
	}
	if x.Observer == record.AtBoth && x.IngressRule != "" {
		seen.Ingress = policy.RuleID(x.IngressRule)
	}
	if x.ShadowRule != "" {
		seen.Shadow, seen.ShadowRule = x.ShadowVerdict, policy.RuleID(x.ShadowRule)
	}
	n.noteWay(x)
}

// noteWay adds what one record says of the way that the session took.
func (n *notes) noteWay(x record.Record) {
	seen := &n.seen
	if x.Service != "" {
		seen.Service = x.Service
		if x.Destination.Workload != "" {
			seen.Backends = []string{x.Destination.Project + "/" + x.Destination.Workload}
		}
	}
	if s := x.TranslatedSource; s != "" {
		if ap, err := netip.ParseAddrPort(s); err == nil {
			s = ap.Addr().String()
		}
		seen.As = s
	}
	if d := x.TranslatedDestination; d != "" {
		if ap, err := netip.ParseAddrPort(d); err == nil && !strings.Contains(strings.TrimPrefix(n.c.At, "["), "]:") && strings.Count(n.c.At, ":") != 1 {
			d = ap.Addr().String()
		}
		seen.At = d
	}
	for i := range n.c.Via {
		if slices.Contains(n.c.Via[i], x.Via) {
			for len(seen.Via) <= i {
				seen.Via = append(seen.Via, nil)
			}
			seen.Via[i] = []string{x.Via}
			return
		}
	}
	if x.Via != "" {
		seen.Via = append(seen.Via, []string{x.Via})
	}
}
