package dns

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// Zones is what the Networks of a Snapshot are answered. It never changes.
type Zones struct {
	views    map[snapshot.VNI]*view
	snapshot *snapshot.Snapshot
}

// NewZones makes the Zones of every Network that the Snapshot has in Names.
// Only what differs from the Snapshot of earlier, which may be nil, costs more
// than a comparison.
func NewZones(s *snapshot.Snapshot, earlier *Zones) *Zones {
	if earlier == nil {
		earlier = &Zones{snapshot: &snapshot.Snapshot{}}
	}
	old := earlier.snapshot
	z := &Zones{views: make(map[snapshot.VNI]*view, len(s.Names)), snapshot: s}
	bs := map[snapshot.VNI]*builder{}
	for vni, config := range s.Names {
		v := earlier.views[vni]
		_, out := s.Exits[vni]
		_, was := old.Exits[vni]
		if v == nil || out != was || !reflect.DeepEqual(v.config, config) || !reflect.DeepEqual(v.network, s.Networks[vni]) {
			b := newBuilder(vni, config, s.Networks[vni])
			bs[vni] = b
			continue
		}
		z.views[vni] = v
	}
	at := func(vni snapshot.VNI) *builder {
		if b := bs[vni]; b != nil {
			return b
		}
		v := z.views[vni]
		if v == nil {
			return nil
		}
		bs[vni] = change(v)
		return bs[vni]
	}
	fresh := maps.Clone(bs)
	if len(fresh) > 0 || !same(s.Endpoints, old.Endpoints) {
		diffEndpoints(s, old, fresh, at)
	}
	if len(fresh) > 0 || !same(s.Services, old.Services) {
		diffServices(s, old, fresh, at)
	}
	for vni, b := range bs {
		z.views[vni] = b.done()
	}
	return z
}

// same: the two are one map. Snapshots share what did not change.
func same[K comparable, V any](a, b map[K]V) bool {
	return len(a) == len(b) && reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}

func diffEndpoints(s, old *snapshot.Snapshot, fresh map[snapshot.VNI]*builder, at func(snapshot.VNI) *builder) {
	for a, e := range old.Endpoints {
		n, stays := s.Endpoints[a]
		if fresh[a.VNI] != nil || stays && n.Project == e.Project && n.Workload == e.Workload {
			continue
		}
		if b := at(a.VNI); b != nil {
			b.address(e.Project, e.Workload, ofWorkload, a.IP, false)
		}
	}
	for a, e := range s.Endpoints {
		was, there := old.Endpoints[a]
		if fresh[a.VNI] == nil && there && was.Project == e.Project && was.Workload == e.Workload {
			continue
		}
		if b := at(a.VNI); b != nil {
			b.address(e.Project, e.Workload, ofWorkload, a.IP, true)
		}
	}
}

func diffServices(s, old *snapshot.Snapshot, fresh map[snapshot.VNI]*builder, at func(snapshot.VNI) *builder) {
	sameNames := func(a, b snapshot.Service) bool {
		return a.Project == b.Project && a.Name == b.Name && a.Floating == b.Floating && a.PortName == b.PortName && slices.Equal(a.Names, b.Names)
	}
	for k, svc := range old.Services {
		n, stays := s.Services[k]
		for _, vni := range seenIn(old, svc) {
			if fresh[vni] == nil && (!stays || !sameNames(n, svc)) {
				if b := at(vni); b != nil {
					b.service(svc, false)
				}
			}
		}
	}
	for k, svc := range s.Services {
		was, there := old.Services[k]
		for _, vni := range seenIn(s, svc) {
			if fresh[vni] != nil || !there || !sameNames(was, svc) {
				if b := at(vni); b != nil {
					b.service(svc, true)
				}
			}
		}
	}
}

// seenIn lists the Networks in which a Service has its name: its own, and for
// a FloatingIP of the underlay those of its project that may leave.
func seenIn(s *snapshot.Snapshot, svc snapshot.Service) []snapshot.VNI {
	if svc.Addr.VNI != snapshot.Outside {
		return []snapshot.VNI{svc.Addr.VNI}
	}
	var out []snapshot.VNI
	for vni := range s.Exits {
		if n, ok := s.Networks[vni]; ok && n.Project == svc.Project {
			out = append(out, vni)
		}
	}
	return out
}

// builder makes a view, of nothing or of another one, of which it copies what
// it changes.
type builder struct {
	*view
	mine map[string]*entry // entries that are not shared
}

func newBuilder(vni snapshot.VNI, config snapshot.DNS, network snapshot.Network) *builder {
	b := &builder{mine: map[string]*entry{}, view: &view{
		vni: vni, config: config, network: network, ttl: seconds(config.TTL), order: orderOf(config.Order),
		names: map[string]*entry{}, below: map[string]int{}, ptr: map[netip.Addr][]string{}, outer: map[string]bool{},
	}}
	zone, ok := wireName(config.Zone)
	if !ok || zone == "\x00" {
		zone, _ = wireName("moire.internal")
		b.problem("zone %q is not a name; the names are in moire.internal", config.Zone)
	}
	b.zone = zone
	for _, d := range config.Delegations {
		key, ok := wireName(d.Zone)
		if !ok || len(d.Servers) == 0 {
			b.problem("delegation of %q: it is not a name, or has no servers", d.Zone)
			continue
		}
		b.routes = append(b.routes, delegation{key, d.Servers})
	}
	slices.SortStableFunc(b.routes, func(x, y delegation) int { return len(y.zone) - len(x.zone) })
	b.apex()
	b.records()
	return b
}

// apex makes what the zone itself has.
func (b *builder) apex() {
	ns := "\x02ns" + b.zone
	data := []byte(ns + "\x0ahostmaster" + b.zone)
	// Serial, refresh, retry, expire; the last is how long to remember that
	// something is not there (RFC 2308).
	for _, n := range []uint32{1, 3600, 600, 86400, b.ttl} {
		data = append(data, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	soa := block(dns.TypeSOA, b.ttl, data)
	b.nodata = &answer{ours: true, ns: 1, body: append([]byte(b.zone), soa[2:]...)}
	b.outside = &answer{ours: true, ns: 1, body: soa}
	b.missing = &answer{ours: true, ns: 1, body: b.nodata.body, rcode: dns.RcodeNameError}
	e := b.entry(b.zone)
	e.custom = map[uint16]*answer{dns.TypeSOA: set([][]byte{soa}), dns.TypeNS: set([][]byte{block(dns.TypeNS, b.ttl, []byte(ns))})}
	e = b.entry(ns)
	e.custom = map[uint16]*answer{
		dns.TypeA:    addresses([]netip.Addr{snapshot.NameServer4}, true, b.ttl),
		dns.TypeAAAA: addresses([]netip.Addr{snapshot.NameServer6}, false, b.ttl),
	}
}

// records takes the tenant's own in.
func (b *builder) records() {
	blocks := map[string]map[uint16][][]byte{}
	for _, r := range b.config.Records {
		key, rr, err := b.record(r)
		if err != nil {
			b.problem("record %s %s %q: %v", r.Name, r.Type, r.Data, err)
			continue
		}
		kind := uint16(rr[2])<<8 | uint16(rr[3])
		if blocks[key] == nil {
			blocks[key] = map[uint16][][]byte{}
		}
		blocks[key][kind] = append(blocks[key][kind], rr)
	}
	for key, byType := range blocks {
		e := b.entry(key)
		if e.custom == nil {
			e.custom = map[uint16]*answer{}
		}
		if c := byType[dns.TypeCNAME]; len(c) > 0 {
			// Whoever has another name has nothing else (RFC 1034, 3.6.2).
			if len(c) > 1 || len(byType) > 1 {
				b.problem("%s has a CNAME beside other records; only the CNAME counts", textName(key))
			}
			byType = map[uint16][][]byte{dns.TypeCNAME: c[:1]}
			e.cname, e.alias = set(c[:1]), strings.ToLower(string(c[0][12:]))
		}
		for kind, rrs := range byType {
			e.custom[kind] = set(rrs)
		}
		if up, wild := strings.CutPrefix(key, "\x01*"); wild && !within(key, b.zone) {
			b.outer[up] = true
		}
	}
}

// record reads one record of the tenant.
func (b *builder) record(r snapshot.DNSRecord) (key string, rr []byte, err error) {
	key, ok := wireName(r.Name)
	if !ok {
		return "", nil, fmt.Errorf("%q is not a name", r.Name)
	}
	ttl := b.ttl
	if r.TTL > 0 {
		ttl = seconds(r.TTL)
	}
	parsed, err := dns.NewRR(fmt.Sprintf("%s %d IN %s %s", dns.CanonicalName(r.Name), ttl, r.Type, r.Data))
	if err != nil {
		return "", nil, fmt.Errorf("the data is not as in a zone file: %w", err)
	}
	if parsed == nil {
		return "", nil, fmt.Errorf("there is no data")
	}
	buf := make([]byte, 16<<10)
	n, err := dns.PackRR(parsed, buf, 0, nil, false)
	if err != nil {
		return "", nil, err
	}
	rest := buf[len(key):n]
	return key, append([]byte{ownerPointer >> 8, ownerPointer & 0xff}, rest...), nil
}

func (b *builder) problem(format string, args ...any) {
	b.problems = append(b.problems, fmt.Sprintf(format, args...))
}

// nameOf is the key of <name>.<project>.<zone>.
func (b *builder) nameOf(project, name string) (string, bool) {
	key, ok := wireName(name + "." + project)
	if !ok || len(key)-1+len(b.zone) > maxName {
		return "", false
	}
	return key[:len(key)-1] + b.zone, true
}

var protocols = map[uint8]string{policy.TCP: "\x04_tcp", policy.UDP: "\x04_udp", policy.SCTP: "\x05_sctp"}

// service adds or removes one port of a Service.
func (b *builder) service(s snapshot.Service, add bool) {
	of := ofService
	if s.Floating {
		of = ofFloating
	}
	b.address(s.Project, s.Name, of, s.Addr.IP, add)
	for _, n := range s.Names {
		if key, ok := wireName(n); ok {
			b.addressAt(key, of, s.Addr.IP, add)
		}
	}
	key, ok := b.nameOf(s.Project, s.Name)
	proto := protocols[s.Protocol]
	if !ok || s.PortName == "" || proto == "" {
		return
	}
	at := string(rune(1+len(s.PortName))) + "_" + s.PortName + proto + key
	if len(at) > maxName {
		return
	}
	e := b.entry(at)
	t := target{key, s.Port}
	i, _ := slices.BinarySearchFunc(e.srv, t, compareTargets)
	switch {
	case add:
		e.srv = slices.Insert(slices.Clone(e.srv), i, t)
	case i < len(e.srv) && e.srv[i] == t:
		e.srv = slices.Delete(slices.Clone(e.srv), i, i+1)
	}
}
