package datapath

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// Proxy is a process that speaks for Workloads.
type Proxy struct {
	Name string
	// Cgroup is the directory, below CgroupRoot, that the process is in and nobody
	// else. "": nothing that it connects is known as a proxy's.
	Cgroup string
	// Workers: as many listeners of each kind it takes in every namespace; at least 1.
	Workers int
}

const (
	flagProxied = 2 // allow of a verdict

	howMesh   = 128 // the Workload is in the mesh
	howStrict = 256 // and takes no plain bytes
	howGate   = 512 // nobody but its proxy is there

	mostStandings = 8
)

// howMeshed says what a mode means to the programs.
func howMeshed(m snapshot.Mode) uint16 {
	switch m {
	case snapshot.Permissive:
		return howMesh
	case snapshot.Strict:
		return howMesh | howStrict
	}
	return 0
}

// numbered is the number of a proxy or a project: nobody can choose a name that
// has another one's.
func numbered(kind, name string) uint64 {
	sum := sha256.Sum256([]byte(kind + "\x00" + name))
	return max(binary.LittleEndian.Uint64(sum[:]), 1)
}

func proxyNumber(name string) uint64   { return numbered("proxy", name) }
func projectNumber(name string) uint64 { return numbered("project", name) }

// wantedMesh is what the tables of the mesh must hold, and where proxies stand.
type wantedMesh struct {
	proxies   map[uint64]bool
	groups    map[uint64]uint64
	frontends map[bpf.MoireFrontendKey]uint32
	stands    map[uint64]*wantedStand // by cookie
	// near are namespaces of Locals in which no proxy needs to stand any more.
	near map[uint64]bool
}

// wantedStand is a namespace in which a proxy stands.
type wantedStand struct {
	proxy string
	row   bpf.MoireStand // but for what only the namespace knows
	keys  []snapshot.AttachmentKey
	// problem: it cannot be made ready.
	problem error
}

// wantMesh says which proxies there are, and where they stand.
func (d *Datapath) wantMesh(w *want, s State) error {
	m := &wantedMesh{proxies: map[uint64]bool{}, groups: map[uint64]uint64{}, frontends: map[bpf.MoireFrontendKey]uint32{},
		stands: map[uint64]*wantedStand{}, near: map[uint64]bool{}}
	w.mesh = m
	workers := map[string]int{}
	for _, p := range s.Proxies {
		n := proxyNumber(p.Name)
		m.proxies[n], workers[p.Name] = true, max(p.Workers, 1)
		if p.Cgroup == "" {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(p.Cgroup, &st); err != nil {
			return fmt.Errorf("cgroup %s of proxy %s: %w", p.Cgroup, p.Name, err)
		}
		m.groups[st.Ino] = n
	}
	for k := range s.Snapshot.Frontends {
		if k.Protocol == policy.TCP {
			m.frontends[frontendKey(k)] = 1
		}
	}
	for i := range s.Locals {
		l := &s.Locals[i]
		if _, known := workers[l.Proxy]; l.Proxy != "" && !known {
			return fmt.Errorf("interface %s: there is no proxy %q", l.Host, l.Proxy)
		}
		if l.Netns != "" && !d.cfg.Ephemeral && l.Proxy != "" {
			d.wantStand(w, l, workers[l.Proxy])
		}
	}
	if len(m.stands) < len(d.stands) {
		d.findNear(m, s.Locals)
	}
	return nil
}

// findNear notes the stands that nobody needs in namespaces where Workloads still are.
func (d *Datapath) findNear(m *wantedMesh, locals []Local) {
	for i := range locals {
		if l := &locals[i]; l.Netns != "" && l.Proxy == "" {
			if s, err := d.standIn(l.Netns, false); err == nil && s != nil {
				m.near[s.cookie] = true
			}
		}
	}
}

func frontendKey(k snapshot.FrontendKey) bpf.MoireFrontendKey {
	out := bpf.MoireFrontendKey{Service: serviceKey(k.ServiceKey)}
	if k.Project != "" {
		out.Project = projectNumber(k.Project)
	}
	return out
}

// wantStand adds the interface to its namespace. A namespace that is not there any
// more is nobody's: whoever has it open would keep it, and its interfaces. What is wrong
// with one namespace is not the others' trouble.
func (d *Datapath) wantStand(w *want, l *Local, workers int) {
	ifindex := w.links[l.Host]
	if ifindex == 0 {
		return
	}
	stand, err := d.standIn(l.Netns, true)
	if err != nil {
		d.cfg.Log.Warn("no proxy can stand in a namespace", "interface", l.Host, "error", err)
	}
	if err != nil || stand == nil {
		return
	}
	at := w.mesh.stands[stand.cookie]
	if at == nil {
		at = &wantedStand{proxy: l.Proxy, row: bpf.MoireStand{Proxy: proxyNumber(l.Proxy), Workers: uint32(workers)}}
		w.mesh.stands[stand.cookie] = at
	}
	at.keys = append(at.keys, l.Key)
	inside, err := stand.inside(ifindex)
	switch {
	case err != nil:
		at.problem = err
		return
	case at.proxy != l.Proxy:
		at.problem = fmt.Errorf("proxies %s and %s cannot both speak in one namespace", at.proxy, l.Proxy)
		return
	case at.row.Count == mostStandings:
		at.problem = fmt.Errorf("a proxy speaks for at most %d interfaces of a Workload", mostStandings)
		return
	}
	if err := at.open(l); err != nil {
		at.problem = err
		return
	}
	row := bpf.MoireStanding{Vni: uint32(l.VNI), Ifindex: uint32(ifindex), Inside: uint32(inside), Project: projectNumber(l.Key.Project)}
	for _, a := range l.Addrs {
		i := flag(a.Unmap().Is6())
		if row.Self[i] == (bpf.MoireAddr{}) {
			row.Self[i] = addrOf(a)
		}
	}
	at.row.At[at.row.Count] = row
	at.row.Count++
}

// open notes the ports of a Gateway.
func (w *wantedStand) open(l *Local) error {
	if !l.Gateway {
		return nil
	}
	w.row.Gate = 1
	if len(l.Ports) > len(w.row.Door) {
		return fmt.Errorf("a Gateway has at most %d ports", len(w.row.Door))
	}
	w.row.Doors = uint32(copy(w.row.Door[:], l.Ports))
	return nil
}

// growMesh makes everything ready for proxies, before anything needs one.
func (d *Datapath) growMesh(w *want, verify bool) error {
	t, m := d.tables, w.mesh
	for n := range m.proxies {
		if _, known := t.proxies.rows[n]; !known {
			if err := t.proxies.put(n, bpf.MoireProxy{}); err != nil {
				return err
			}
		}
	}
	return inOrder(
		func() error { return t.groups.grow(m.groups) },
		func() error { return d.connectors(w, verify) },
		func() error { d.growStands(m, verify); return nil },
		func() error { return t.frontends.grow(m.frontends) },
	)
}

// shrinkMesh takes away the proxies that are gone.
func (d *Datapath) shrinkMesh(w *want) error {
	t, m := d.tables, w.mesh
	err := inOrder(
		func() error { return t.frontends.shrink(m.frontends) },
		func() error { return d.shrinkStands(m) },
		func() error { return t.groups.shrink(m.groups) },
	)
	if err != nil {
		return err
	}
	for n := range t.proxies.rows {
		if !m.proxies[n] {
			if err := t.proxies.remove(n); err != nil {
				return err
			}
		}
	}
	if len(t.stands.rows) == 0 && len(m.groups) == 0 {
		d.disconnect()
	}
	return nil
}

// ProxyUp says that a proxy of the State takes connections, or that it does not: what
// needs it is then refused, and who waits for it is turned away. A proxy is down until
// it is said to be up, also across restarts of the agent. Saying again that it is
// down turns away who has come since.
func (d *Datapath) ProxyUp(name string, up bool) error {
	return d.locked(func() error {
		n := proxyNumber(name)
		if _, known := d.tables.proxies.rows[n]; !known {
			return fmt.Errorf("datapath of node %s: there is no proxy %q", d.cfg.Node, name)
		}
		if err := d.tables.proxies.put(n, bpf.MoireProxy{Up: uint32(flag(up))}); err != nil {
			return fmt.Errorf("datapath of node %s: proxy %s: %w", d.cfg.Node, name, err)
		}
		if !up {
			for _, s := range d.stands {
				if s.row.Proxy == n {
					s.turnAway()
				}
			}
		}
		return nil
	})
}

// Interception is what a proxy needs to speak in one network namespace: when that
// could not be made ready there are no listeners, and what needs a proxy there is refused. The
// descriptors are the Datapath's, and good until the Shrink after the Grow that no
// longer lists them; whoever wants them for longer takes duplicates.
type Interception struct {
	// Namespace is the key of l7.Workload.Namespace: the namespace's cookie.
	Namespace string
	// Proxy that speaks there.
	Proxy string
	// Interfaces that are there.
	Interfaces []snapshot.AttachmentKey
	// Netns is the namespace itself.
	Netns int
	// Outbound and Inbound listen, one for each worker; they do not block. Whoever
	// accepts on Outbound has asked for the local address of the connection, and is
	// its remote one; on Inbound, too, and the local one is the Workload's own.
	Outbound, Inbound []int
	// Error says why the namespace is not ready; it is tried again.
	Error string
}

// Interceptions lists what the proxies need, as of the last Grow, in a fixed order.
func (d *Datapath) Interceptions() []Interception {
	if all := d.interceptions.Load(); all != nil {
		return *all
	}
	return nil
}

// peerOf is the index of the other end of a pair.
func peerOf(ifindex int) (int, error) {
	l, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return 0, fmt.Errorf("look for interface %d: %w", ifindex, err)
	}
	return l.Attrs().ParentIndex, nil
}
