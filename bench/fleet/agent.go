package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"moire.dev/moire/compile"
	"moire.dev/moire/discovery"
	"moire.dev/moire/snapshot"
)

// agent is a node of which only the kernel is missing: it reports what is
// attached, gives out addresses of the blocks that it is granted, and
// acknowledges what it gets.
type agent struct {
	name    string
	address netip.Addr
	client  *discovery.Client

	mu       sync.Mutex
	attached []snapshot.Attachment
	used     map[snapshot.Addr]bool
	snap     *snapshot.Snapshot
	at       time.Time
	base     *snapshot.Snapshot // as of mark
	awaits   *awaited
}

// awaited is what shall come.
type awaited struct {
	proof func(a *agent, s *snapshot.Snapshot) bool
	came  chan time.Time
}

// newAgent joins a node. Of the attachments only who they are counts.
func newAgent(ctx context.Context, m meeting, dir string, i int, attached []snapshot.Attachment) (*agent, error) {
	a := &agent{name: nodeName(i), address: nodeAddress(i), used: map[snapshot.Addr]bool{}}
	for _, at := range attached {
		at.VNI, at.Addresses = 0, nil
		at.Since = time.Now().Truncate(time.Second)
		a.attached = append(a.attached, at)
	}
	var err error
	if a.client, err = join(ctx, m, dir, i, a); err != nil {
		return nil, err
	}
	a.report()
	return a, nil
}

// Snapshot takes what comes.
func (a *agent) Snapshot(s *snapshot.Snapshot) {
	a.mu.Lock()
	a.snap, a.at = s, time.Now()
	if w := a.awaits; w != nil && w.proof(a, s) {
		w.came <- a.at // it has room
		a.awaits = nil
	}
	news := a.fill()
	a.mu.Unlock()
	a.client.Ack(s.Version(), true, "")
	if news {
		a.report()
	}
}

// fill gives addresses to what has none and is granted. The caller holds mu.
func (a *agent) fill() (news bool) {
	for i := range a.attached {
		at := &a.attached[i]
		g, granted := a.snap.Grants[at.AttachmentKey]
		if len(at.Addresses) > 0 || !granted || g.Error != "" {
			continue
		}
		for _, b := range a.snap.Blocks {
			if b.VNI != g.VNI {
				continue
			}
			if ip := a.free(b); ip.IsValid() {
				at.VNI, at.Addresses, news = g.VNI, []netip.Addr{ip}, true
				a.used[snapshot.Addr{VNI: g.VNI, IP: ip}] = true
				break
			}
		}
	}
	return news
}

func (a *agent) free(b snapshot.Block) netip.Addr {
	for ip := b.CIDR.Addr(); b.CIDR.Contains(ip); ip = ip.Next() {
		excluded := slices.ContainsFunc(b.Excluded, func(r snapshot.Range) bool { return !ip.Less(r.First) && !r.Last.Less(ip) })
		if !excluded && !a.used[snapshot.Addr{VNI: b.VNI, IP: ip}] {
			return ip
		}
	}
	return netip.Addr{}
}

// report says what there is.
func (a *agent) report() {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := snapshot.Report{Node: a.name, Address: a.address, Agent: "fleet", Kernel: "none", Attachments: slices.Clone(a.attached)}
	if a.snap != nil {
		for _, b := range a.snap.Blocks {
			r.Blocks = append(r.Blocks, b)
		}
	}
	slices.SortFunc(r.Blocks, func(x, y snapshot.Block) int { return x.BlockKey.Compare(y.BlockKey) })
	a.client.Report(r)
}

// remac gives the first attachment another MAC address and says so.
func (a *agent) remac(mac snapshot.MAC) {
	a.mu.Lock()
	a.attached[0].MAC = mac
	a.mu.Unlock()
	a.report()
}

// first is the first attachment as it is.
func (a *agent) first() snapshot.Attachment {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.attached[0]
}

// missing counts what has no address, is not known, or is not guarded, and
// says when the last snapshot came.
func (a *agent) missing() (n int, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.snap == nil {
		return len(a.attached), a.at
	}
	for _, x := range a.attached {
		if len(x.Addresses) == 0 {
			n++
		} else if e, known := a.snap.Endpoints[snapshot.Addr{VNI: x.VNI, IP: x.Addresses[0]}]; !known || e.Node != a.name {
			n++
		}
	}
	if want := perNetwork * len(a.snap.Networks); len(a.snap.Services) < want || len(a.snap.Policies) < want {
		n++
	}
	return n, a.at
}

func (a *agent) hosts(project string) bool {
	return slices.ContainsFunc(a.attached, func(x snapshot.Attachment) bool { return x.Project == project })
}

// mark remembers what the node has now; received is the size of what came since.
func (a *agent) mark() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.base = a.snap
}

func (a *agent) received() float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.base == a.snap {
		return 0
	}
	return kib(snapshot.Diff(a.base, a.snap))
}

// await makes the nodes look for something; the result waits until the last of
// them has it.
func await(nodes []*agent, proof func(*agent, *snapshot.Snapshot) bool) func(context.Context) (last time.Time, err error) {
	came := make(chan time.Time, len(nodes))
	for _, a := range nodes {
		a.mu.Lock()
		a.awaits = &awaited{proof, came}
		a.mu.Unlock()
	}
	return func(ctx context.Context) (last time.Time, err error) {
		ctx, cancel := context.WithTimeout(ctx, patient)
		defer cancel()
		for i := range nodes {
			select {
			case at := <-came:
				if at.After(last) {
					last = at
				}
			case <-ctx.Done():
				return last, fmt.Errorf("%d of %d nodes did not get it: %w", len(nodes)-i, len(nodes), ctx.Err())
			}
		}
		return last, nil
	}
}

// drained: the Service sends nothing new to the Workload.
func drained(s *snapshot.Snapshot, service compile.Key, workload string) bool {
	for _, row := range s.Services {
		if row.Project != service.Project || row.Name != service.Name {
			continue
		}
		return slices.ContainsFunc(row.Leaving, func(b snapshot.Backend) bool { return s.Endpoints[b.Addr].Workload == workload })
	}
	return false
}

// allows: a rule of the Policy opens the port.
func allows(s *snapshot.Snapshot, key compile.Key, port uint16) bool {
	prefix := "policy/" + key.Project + "/" + key.Name + "/"
	for _, set := range s.Policies {
		for _, r := range set.Rules {
			if strings.HasPrefix(string(r.ID), prefix) && len(r.Ports) == 1 && r.Ports[0].First == port {
				return true
			}
		}
	}
	return false
}
