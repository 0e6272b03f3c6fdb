package snapshot

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// leaves calls do with the path of every field in v, after another value was
// put there, and puts the old one back.
func leaves(v reflect.Value, path string, do func(path string)) {
	switch v.Type() {
	case reflect.TypeFor[netip.Addr]():
		put(v, netip.MustParseAddr("2001:db8::77"), path, do)
		return
	case reflect.TypeFor[netip.AddrPort]():
		put(v, netip.MustParseAddrPort("[2001:db8::77]:7"), path, do)
		return
	case reflect.TypeFor[netip.Prefix]():
		put(v, netip.MustParsePrefix("2001:db8::/37"), path, do)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			leaves(v.Field(i), path+"."+v.Type().Field(i).Name, do)
		}
	case reflect.Slice:
		old := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(old, v)
		longer := reflect.Append(old, reflect.New(v.Type().Elem()).Elem())
		put(v, longer.Interface(), path+"+", do)
		one := reflect.MakeSlice(v.Type(), 1, 1)
		v.Set(one)
		leaves(v.Index(0), path+"[0]", do)
		v.Set(old)
	case reflect.Pointer:
		old := v.Interface()
		v.Set(reflect.New(v.Type().Elem()))
		do(path + "*")
		leaves(v.Elem(), path+"*", do)
		v.Set(reflect.ValueOf(old))
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		m.SetMapIndex(reflect.ValueOf("another").Convert(v.Type().Key()), reflect.Zero(v.Type().Elem()))
		put(v, m.Interface(), path+"{}", do)
	case reflect.Array:
		leaves(v.Index(v.Len()-1), path+"[]", do)
	case reflect.String:
		put(v, reflect.ValueOf("another").Convert(v.Type()).Interface(), path, do)
	case reflect.Bool:
		put(v, !v.Bool(), path, do)
	default:
		put(v, reflect.ValueOf(uint8(99)).Convert(v.Type()).Interface(), path, do)
	}
}

func put(v reflect.Value, value any, path string, do func(string)) {
	old := reflect.New(v.Type()).Elem()
	old.Set(v)
	v.Set(reflect.ValueOf(value))
	do(path)
	v.Set(old)
}

// clone shares nothing with the row.
func clone(of any) any {
	var deep func(to, from reflect.Value)
	deep = func(to, from reflect.Value) {
		to.Set(from)
		switch {
		case from.Kind() == reflect.Slice:
			to.Set(reflect.MakeSlice(from.Type(), from.Len(), from.Len()))
			for i := range from.Len() {
				deep(to.Index(i), from.Index(i))
			}
		case from.Kind() == reflect.Pointer && !from.IsNil():
			to.Set(reflect.New(from.Type().Elem()))
			deep(to.Elem(), from.Elem())
		case from.Kind() == reflect.Struct && from.Type().PkgPath() != "net/netip":
			for i := range from.NumField() {
				deep(to.Field(i), from.Field(i))
			}
		}
	}
	out := reflect.New(reflect.TypeOf(of).Elem())
	deep(out.Elem(), reflect.ValueOf(of).Elem())
	return out.Interface()
}

// TestDigestSeesEveryField: whichever field of a row is another, so is the
// Digest, and so is the row for Diff; a field that is added to a row and
// forgotten there fails here.
func TestDigestSeesEveryField(t *testing.T) {
	h := &hasher{}
	for name, c := range map[string]struct {
		row any
		sum func(any) sum
		// same is how Diff compares such rows; nil: by reflection.
		same func(a, b any) bool
	}{
		"endpoint": {&Endpoint{}, func(r any) sum { return row(h, 'e', Addr{}, r.(*Endpoint), (*hasher).endpoint) }, nil},
		"identity": {&Identity{}, func(r any) sum { return row(h, 'i', 0, r.(*Identity), (*hasher).identity) },
			func(a, b any) bool { return sameIdentity(*a.(*Identity), *b.(*Identity)) }},
		"service": {&Service{}, func(r any) sum { return row(h, 's', ServiceKey{}, r.(*Service), (*hasher).service) },
			func(a, b any) bool { return SameService(*a.(*Service), *b.(*Service)) }},
		"set": {&policy.Set{}, func(r any) sum { return row(h, 'p', PolicyKey{}, r.(*policy.Set), (*hasher).policy) },
			func(a, b any) bool { return SameSet(*a.(*policy.Set), *b.(*policy.Set)) }},
		"key":      {&PolicyKey{}, func(r any) sum { return row(h, 'p', *r.(*PolicyKey), &policy.Set{}, (*hasher).policy) }, nil},
		"trust":    {&Trust{}, func(r any) sum { return row(h, 't', "", r.(*Trust), (*hasher).trust) }, nil},
		"frontend": {&Frontend{}, func(r any) sum { return row(h, 'f', FrontendKey{}, r.(*Frontend), (*hasher).frontend) }, nil},
		"route":    {&l7.Route{}, func(r any) sum { return row(h, 'r', "", r.(*l7.Route), (*hasher).route) }, nil},
		"cluster":  {&Cluster{}, func(r any) sum { return row(h, 'l', "", r.(*Cluster), (*hasher).cluster) }, nil},
		"keys":     {&l7.KeySet{}, func(r any) sum { return row(h, 'j', "", r.(*l7.KeySet), (*hasher).keySet) }, nil},
		"network":  {&Network{}, func(r any) sum { return row(h, 'w', 0, r.(*Network), plain) }, nil},
	} {
		seen := map[sum]string{c.sum(c.row): "nothing"}
		rows := []any{clone(c.row)}
		leaves(reflect.ValueOf(c.row).Elem(), name, func(path string) {
			s := c.sum(c.row)
			if other, is := seen[s]; is {
				t.Errorf("%s makes no difference to %s", path, other)
			}
			seen[s] = path
			if c.same == nil {
				return
			}
			if i := slices.IndexFunc(rows, func(o any) bool { return c.same(o, c.row) }); i >= 0 {
				t.Errorf("%s is the same as %+v", path, rows[i])
			}
			rows = append(rows, clone(c.row))
		})
	}
	one, other := &Snapshot{Node: "a"}, &Snapshot{Node: "b"}
	with := &Snapshot{Node: "a", Firewall: &Firewall{}}
	accepts := &Snapshot{Node: "a", AcceptMassDelete: true}
	versions := map[Version]bool{}
	for _, s := range []*Snapshot{one, other, with, accepts} {
		versions[s.Version()] = true
	}
	if len(versions) != 4 {
		t.Errorf("%d versions of four snapshots", len(versions))
	}
}

// aSnapshot draws one with some rows in every table.
func aSnapshot(t *rapid.T) *Snapshot {
	s := &Snapshot{Node: "n1", Nodes: map[string]Node{}, Networks: map[VNI]Network{}, Identities: map[policy.Identity]Identity{}, Endpoints: map[Addr]Endpoint{},
		Blocks: map[BlockKey]Block{}, Grants: map[AttachmentKey]Grant{}, Policies: map[PolicyKey]policy.Set{}, Chains: map[ChainKey]Chain{}, Services: map[ServiceKey]Service{},
		Exits: map[VNI]Exit{}, Masquerades: map[Addr]Masquerade{}, Externals: map[netip.Addr]External{}, Names: map[VNI]DNS{}, Checks: map[CheckKey]Check{}, Captures: map[string]Capture{},
		Trusts: map[string]Trust{}, Frontends: map[FrontendKey]Frontend{}, Routes: map[string]l7.Route{}, Clusters: map[string]Cluster{}, KeySets: map[string]l7.KeySet{}, Gateways: map[GatewayKey]Gateway{}}
	for range rapid.IntRange(0, 30).Draw(t, "rows") {
		n := rapid.Uint32Range(1, 4).Draw(t, "key")
		v := rapid.IntRange(0, 3).Draw(t, "value")
		a := Addr{VNI: VNI(n), IP: netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})}
		text := fmt.Sprint(v)
		switch rapid.IntRange(0, 21).Draw(t, "table") {
		case 0:
			s.Nodes[fmt.Sprint(n)] = Node{Name: text}
		case 1:
			s.Networks[VNI(n)] = Network{Name: text}
		case 2:
			s.Identities[policy.Identity(n)] = Identity{Labels: []Label{{"a", text}}}
		case 3:
			s.Endpoints[a] = Endpoint{Addr: a, Workload: text}
		case 4:
			s.Blocks[BlockKey{VNI: VNI(n)}] = Block{Excluded: make([]Range, v)}
		case 5:
			s.Grants[AttachmentKey{Project: fmt.Sprint(n)}] = Grant{Error: text}
		case 6:
			s.Policies[PolicyKey{VNI: VNI(n)}] = policy.Set{Rules: make([]policy.Rule, v)}
		case 7:
			s.Chains[ChainKey{VNI: VNI(n)}] = Chain{Function: text}
		case 8:
			s.Services[ServiceKey{Addr: a}] = Service{ServiceKey: ServiceKey{Addr: a}, Backends: make([]Backend, v)}
		case 9:
			s.Exits[VNI(n)] = Exit{Gateway: text}
		case 10:
			s.Masquerades[a] = Masquerade{Node: text}
		case 11:
			s.Externals[a.IP] = External{Node: text}
		case 12:
			s.Names[VNI(n)] = DNS{Zone: text}
		case 13:
			s.Checks[CheckKey{Addr: a}] = Check{Failures: v}
		case 14:
			s.Captures[fmt.Sprint(n)] = Capture{Rule: text, Until: time.Unix(int64(v), 0).UTC()}
		case 15:
			s.Trusts[fmt.Sprint(n)] = Trust{Roots: [][]byte{{byte(v)}}}
		case 16:
			s.Frontends[FrontendKey{Project: fmt.Sprint(n)}] = Frontend{Why: text}
		case 17:
			s.Routes[fmt.Sprint(n)] = l7.Route{Rules: []l7.Rule{{Matches: []l7.Match{{Path: &l7.PathMatch{Value: text}}}}}}
		case 18:
			s.Clusters[fmt.Sprint(n)] = Cluster{Cluster: l7.Cluster{Balancer: l7.Balancer{Kind: l7.BalancerKind(text)}}}
		case 19:
			s.KeySets[fmt.Sprint(n)] = l7.KeySet{JSON: text}
		case 20:
			s.Gateways[GatewayKey{Name: fmt.Sprint(n)}] = Gateway{Certificates: []l7.Certificate{{Key: text}}}
		case 21:
			s.AcceptMassDelete, s.Firewall = v > 1, []*Firewall{nil, {Audit: true}}[v%2]
		}
	}
	return s
}

// TestDigestAfter: what changes step by step has the Digest of what is there,
// and equal content has equal Digests however it came to be.
func TestDigestAfter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := aSnapshot(t)
		d := now.Digest()
		for range 5 {
			next := aSnapshot(t)
			delta := Diff(now, next)
			d = d.After(now, &delta)
			now = now.Apply(&delta)
			if d != next.Digest() || now.Digest() != d || delta.Version != d.Version() {
				t.Fatalf("got %+v, want %+v", d, next.Digest())
			}
		}
		reset := Diff(nil, now)
		if d.After(nil, &reset) != d {
			t.Fatal("a reset gives another Digest")
		}
	})
}

func BenchmarkDigest(b *testing.B) {
	s := &Snapshot{Node: "n1", Endpoints: map[Addr]Endpoint{}}
	for i := range 10000 {
		a := Addr{VNI: 100, IP: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}
		s.Endpoints[a] = Endpoint{Addr: a, Project: "shop", Workload: fmt.Sprint("w", i), Node: "n7", Identity: 300}
	}
	one := s.Apply(&Delta{Put: Snapshot{Endpoints: map[Addr]Endpoint{{VNI: 1}: {}}}})
	b.Run("version", func(b *testing.B) {
		for b.Loop() {
			s.Version()
		}
	})
	b.Run("diff", func(b *testing.B) {
		for b.Loop() {
			DiffTo(s, one, "")
		}
	})
}
