package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"moire.dev/moire/datapath"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/node/mesh"
	"moire.dev/moire/node/proxies"
	"moire.dev/moire/proxy/door"
	"moire.dev/moire/snapshot"
)

// interceptor is what the proxies need of the kernel side.
type interceptor interface {
	// Interceptions lists the sockets that were made for proxies, as of the last
	// Grow.
	Interceptions() []datapath.Interception
	// ProxyUp says whether a proxy takes connections.
	ProxyUp(name string, up bool) error
}

// proxying brings proxies and kernel side together, as two appliers. In front of
// the kernel side (readying) the proxies must have taken what is new, so that
// nothing is led to one that does not know it, and what one refuses is enforced
// nowhere; behind it (serving) they get the sockets that it made.
type proxying struct {
	proxies *proxies.Proxies
	kernel  interceptor
	// svids are the certificates that there are; nil: none.
	svids func() map[string]mesh.Certificate
	// rouse is called when something may be another thing now, due when the kernel
	// side must be told.
	rouse, due func()
	ejected    *ejections
	log        *slog.Logger

	// sockets by namespace, and what they were made of; of the loop alone.
	sockets map[string]*handed
	// met: the kernel side has grown since the agent began, so it is known which
	// sockets there are; of the loop alone.
	met bool
	// ailing is since when something is wrong with a proxy; zero: nothing is. Of
	// the loop alone.
	ailing time.Time
	// needs of interfaces that have a proxy. Never changed, but replaced.
	needs atomic.Pointer[map[snapshot.AttachmentKey]need]
}

// need of an interface for a proxy.
type need struct {
	// why it needs one, for people; "": it does not, but did a while ago.
	why  string
	last time.Time
}

// needLinger is how long an interface that needs no proxy any more keeps it, for
// the sake of the connections that go on: when the last route of a Service goes,
// its callers must not notice.
const needLinger = time.Hour

// handed are the sockets of one namespace, as both sides know them.
type handed struct {
	from datapath.Interception
	door *door.Sockets
}

// ready and serving are the two appliers.
type (
	readying struct{ *proxying }
	serving  struct{ *proxying }
)

// newProxying has proxies as cfg says; take is given their records.
func newProxying(cfg Config, k interceptor, rouse, due func(), take func([]record.Record), log *slog.Logger) (*proxying, error) {
	p := &proxying{kernel: k, rouse: rouse, due: due, log: log, sockets: map[string]*handed{}}
	p.needs.Store(&map[snapshot.AttachmentKey]need{})
	cgroup, err := cfg.proxyCgroup()
	if err != nil {
		log.Error("there can be no proxies; what needs one is refused", "error", err)
		cfg.Proxy = proxies.Off
	}
	p.proxies, err = proxies.New(proxies.Options{
		Node: cfg.Name, Mode: cfg.Proxy, Program: cfg.ProxyProgram, Dir: cfg.proxyDir(), Logs: filepath.Join(cfg.Dir, "proxies"), Cgroup: cgroup,
		Workers: runtime.NumCPU(), Mark: datapath.AppMark, Changed: p.changed, Take: take, Log: log,
	})
	if err != nil {
		return nil, err
	}
	p.ejected = newEjections(p.proxies.Ejected)
	return p, nil
}

// need of an interface, as of the last Grow.
func (p *proxying) need(k snapshot.AttachmentKey) (n need, any bool) {
	n, any = (*p.needs.Load())[k]
	return n, any
}

// proxyOf is the proxy that must speak for an interface; "": it needs none, or
// there is none for it.
func (p *proxying) proxyOf(l *Local) string {
	if _, any := p.need(l.Key); !any || l.Tap {
		return ""
	}
	return p.proxies.Name(l.Key)
}

// lacks says why an interface is not served as it must be; "": it is.
func (p *proxying) lacks(k snapshot.AttachmentKey) string {
	if n, _ := p.need(k); n.why == "" {
		return ""
	}
	return p.proxies.Serves(k)
}

// ails says what is wrong with the proxies and has been for a while; "":
// nothing. Of the loop alone.
func (p *proxying) ails() string {
	text := ailment(p.proxies.Status())
	switch {
	case text == "":
		p.ailing = time.Time{}
	case p.ailing.IsZero():
		p.ailing = time.Now()
	}
	if time.Since(p.ailing) < ailGrace { // one that is replaced is nobody's trouble
		return ""
	}
	return text
}

// settle says which interfaces need a proxy, and makes these the ones that run.
func (p *proxying) settle(s State) error {
	needs, names, now := map[snapshot.AttachmentKey]need{}, map[string]bool{}, time.Now()
	for i := range s.Locals {
		l := &s.Locals[i]
		n, had := p.need(l.Key)
		if n.why = mesh.Needs(s.InForce, l.asMesh()); n.why != "" {
			n.last = now
		}
		if n.why != "" || had && now.Sub(n.last) < needLinger {
			needs[l.Key] = n
		}
	}
	p.needs.Store(&needs)
	for i := range s.Locals {
		if name := p.proxyOf(&s.Locals[i]); name != "" {
			names[name] = true
		}
	}
	return p.proxies.Need(names)
}

// give gives the proxies what they must be, with the sockets that there are.
func (p *proxying) give(s State) {
	in := proxies.Input{Snapshot: s.InForce, Interfaces: map[string][]mesh.Interface{}, Sockets: map[string]*door.Sockets{}}
	if p.svids != nil {
		in.Certificates = p.svids()
	}
	namespaces := map[snapshot.AttachmentKey]string{}
	known := map[string]*handed{}
	for _, i := range p.kernel.Interceptions() {
		had := p.sockets[i.Namespace]
		if had == nil || !sameSockets(had.from, i) {
			had = &handed{i, &door.Sockets{Namespace: i.Netns, Outbound: i.Outbound, Inbound: i.Inbound}}
		}
		known[i.Namespace], in.Sockets[i.Namespace] = had, had.door
		for _, k := range i.Interfaces {
			namespaces[k] = i.Namespace
		}
	}
	p.sockets = known
	for i := range s.Locals {
		l := &s.Locals[i]
		if ns, ok := namespaces[l.Key]; ok {
			name := p.proxies.Name(l.Key)
			i := l.asMesh()
			i.Namespace = ns
			in.Interfaces[name] = append(in.Interfaces[name], *i)
		}
	}
	p.proxies.Set(in)
}

// asMesh is the interface in the words of the proxies.
func (l *Local) asMesh() *mesh.Interface {
	return &mesh.Interface{Key: l.Key, VNI: l.VNI, Addrs: l.Addrs, Gateway: l.Gateway}
}

func sameSockets(a, b datapath.Interception) bool {
	return a.Netns == b.Netns && slices.Equal(a.Outbound, b.Outbound) && slices.Equal(a.Inbound, b.Inbound)
}

// Name of the applier.
func (readying) Name() string { return "proxies" }

// Grow returns when the proxies have taken what is new, or are not there.
func (p readying) Grow(s State) error {
	if err := p.settle(s); err != nil {
		return err
	}
	if !p.met { // a proxy that runs would lose all its sockets, and end every connection
		return nil
	}
	p.give(s)
	return p.proxies.Answered()
}

// Shrink has nothing to do: who is not needed any more goes after a while.
func (p readying) Shrink(State) error { return nil }

// Dump says how the proxies are, and why interfaces need them.
func (p readying) Dump(w io.Writer) error {
	for _, s := range p.proxies.Status() {
		fmt.Fprintf(w, "proxy %s pid=%d up=%t interfaces=%d starts=%d error=%q last=%q log=%s\n", s.Name, s.PID, s.Up, s.Interfaces, s.Starts, s.Error, s.Last, s.Log)
		for _, l := range s.LeftOut {
			fmt.Fprintf(w, "proxy %s leaves out %s\n", s.Name, l)
		}
	}
	needs := *p.needs.Load()
	for _, k := range slices.SortedFunc(maps.Keys(needs), snapshot.AttachmentKey.Compare) {
		fmt.Fprintf(w, "proxied %s/%s/%s because of %q, lacks %q\n", k.Project, k.Workload, k.Network, needs[k].why, p.lacks(k))
	}
	return nil
}

// Name of the applier.
func (serving) Name() string { return "interception" }

// Grow follows that of the kernel side.
func (p serving) Grow(s State) error {
	p.met = true
	p.give(s)
	for _, g := range p.proxies.Groups() {
		if !g.Up && !g.Sure {
			continue // it stays what it was before this agent
		}
		if err := p.kernel.ProxyUp(g.Name, g.Up); err != nil {
			return err
		}
	}
	return nil
}

// Shrink has nothing to do.
func (serving) Shrink(State) error { return nil }

// Dump lists the namespaces in which proxies have sockets.
func (p serving) Dump(w io.Writer) error {
	for _, i := range p.kernel.Interceptions() {
		var who []string
		for _, k := range i.Interfaces {
			who = append(who, k.Project+"/"+k.Workload+"/"+k.Network)
		}
		fmt.Fprintf(w, "namespace %s proxy=%s interfaces=%s listeners=%d+%d\n", i.Namespace, i.Proxy, strings.Join(who, ","), len(i.Outbound), len(i.Inbound))
	}
	return nil
}

// changed is told by the proxies: the kernel side knows at once, the rest soon.
func (p *proxying) changed(g proxies.Group) {
	if g.Up || g.Sure {
		p.tell(g.Name, g.Up)
	}
	if p.ejected.due() {
		p.due()
	}
	p.rouse()
}

func (p *proxying) tell(name string, up bool) {
	if err := p.kernel.ProxyUp(name, up); err != nil {
		p.log.Debug("the kernel side does not know the proxy yet", "proxy", name, "error", err)
	}
}

// turnAwayEvery is how often the kernel side is told again how proxies are, which
// turns away who waits for one that is not there, and it is looked who is well
// again.
const turnAwayEvery = time.Second

// run keeps the proxies until ctx is done, and leaves them running.
func (p *proxying) run(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(turnAwayEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for _, g := range p.proxies.Groups() {
				if g.Up || g.Sure {
					p.tell(g.Name, g.Up)
				}
			}
			if p.ejected.due() {
				p.due()
			}
		}
	}()
	err := p.proxies.Run(ctx)
	<-done
	return err
}
