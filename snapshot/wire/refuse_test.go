package wire

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
)

var (
	ip4  = []byte{10, 0, 0, 1}
	ip6  = []byte{0xfd, 15: 1}
	in46 = []byte{10: 0xff, 11: 0xff, 12: 10, 15: 1}
	net4 = &Prefix{Address: []byte{10, 0, 0, 0}, Bits: 24}
)

// good rows, one of each kind.
func goodRows() map[string]*Row {
	out := goodMeshRows()
	maps.Copy(out, map[string]*Row{
		"node":     {Row: &Row_Node{&Node{Name: "n1", Address: ip4, Number: 1}}},
		"network":  {Row: &Row_Network{&Network{Vni: 5, Project: "p", Name: "n", Prefixes: []*Prefix{net4}}}},
		"identity": {Row: &Row_Identity{&Identity{Number: 3, Project: "p", Labels: []*Label{{Key: "a"}, {Key: "b"}}}}},
		"endpoint": {Row: &Row_Endpoint{&Endpoint{Vni: 5, Address: ip4, Project: "p", Workload: "w", Node: "n1", Mac: []byte{2, 0, 0, 0, 0, 1}}}},
		"block":    {Row: &Row_Block{&Block{Vni: 5, Cidr: net4, Excluded: []*Range{{First: ip4, Last: ip4}}}}},
		"grant":    {Row: &Row_Grant{&Grant{Project: "p", Workload: "w", Network: "n", Vni: 5, Addresses: [][]byte{ip4, ip6}}}},
		"policy": {Row: &Row_Policy{&PolicySet{Vni: 5, Identity: 3, DefaultId: "d", Rules: []*Rule{
			{Id: "a", Tier: 0, Action: 2, Peers: []*Peer{{Identities: []uint32{1, 2}, Cidr: net4, Except: []*Prefix{{Address: ip4, Bits: 32}}}}},
			{Id: "b", Tier: 1, Action: 1, Ports: []*PortRange{{Protocol: 6, First: 1, Last: 65535}}},
		}}}},
		"chain":      {Row: &Row_Chain{&Chain{Key: &ChainKey{Vni: 5, Link: "p/l"}, Hops: []*Hop{{Project: "p", Workload: "fw", Addr: &Addr{Vni: 5, Address: ip4}}}}}},
		"service":    {Row: &Row_Service{&Service{Addr: &Addr{Vni: 5, Address: ip4}, Protocol: 6, Port: 80, Project: "p", Name: "s", Backends: []*Backend{{Addr: &Addr{Vni: 5, Address: ip4}}}}}},
		"exit":       {Row: &Row_Exit{&Exit{Vni: 5, Addresses: [][]byte{ip4}, Hosts: []*PortRange{{Protocol: 6, First: 1, Last: 2}}}}},
		"masquerade": {Row: &Row_Masquerade{&Masquerade{Addr: &Addr{Vni: 5, Address: ip4}, As: ip4}}},
		"external":   {Row: &Row_External{&External{Address: ip4, Node: "n1"}}},
		"names":      {Row: &Row_Names{&Names{Vni: 5, Zone: "z", Forward: []*Server{{Address: ip4, Port: 53}}, Records: []*NameRecord{{Name: "a.", Type: "A", Data: "10.0.0.1"}}}}},
		"check":      {Row: &Row_Check{&Check{Key: &CheckKey{Addr: &Addr{Vni: 5, Address: ip4}, Kind: "tcp", Port: 80}, Interval: 1}}},
		"capture":    {Row: &Row_Capture{&Capture{Id: "c", Vnis: []uint32{5}, Probe: &Probe{Source: &Addr{Vni: 5, Address: ip4}, Destination: &Addr{Vni: 5, Address: ip4}}}}},
		"own":        {Row: &Row_Own{&Own{AcceptMassDelete: true, Firewall: &Firewall{Allow: []*FirewallRule{{From: []*Prefix{net4}}}}}}},
	})
	return out
}

func TestGoodRows(t *testing.T) {
	for kind, r := range goodRows() {
		if _, err := ToSnapshot("n1", []*Row{r}); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

type badRow struct {
	kind   string
	change func(*Row)
	want   string // the whole error after "row 0 "
}

func TestBadRows(t *testing.T) {
	long := strings.Repeat("x", 70_000)
	for _, c := range append(badMeshRows(), []badRow{
		{"chain", func(r *Row) { r.GetChain().Key = nil }, "(chain): field key: missing"},
		{"chain", func(r *Row) { r.GetChain().Hops[0].Addr = nil }, "(chain {5 p/l false}): field hops.addr.vni: network id 0 is not within 1 to 16777215"},
		{"service", func(r *Row) { r.GetService().Protocol = 256 }, "(service): field protocol: 256 is larger than 255"},
		{"service", func(r *Row) { r.GetService().Affinity = -1 }, "(service {5/10.0.0.1 6 80}): field affinity: -1ns is negative"},
		{"exit", func(r *Row) { r.GetExit().Hosts[0].First = 3 }, "(exit 5): field rules.ports: 3 to 2 is no range"},
		{"masquerade", func(r *Row) { r.GetMasquerade().As = nil }, "(masquerade 5/10.0.0.1): field as: an address of 0 bytes; want 4 or 16"},
		{"names", func(r *Row) { r.GetNames().Records[0].Name = "" }, "(names 5): field records.name: empty"},
		{"check", func(r *Row) { r.GetCheck().Interval = -5 }, "(check 5/10.0.0.1 tcp 80): field interval: -5ns is negative"},
		{"capture", func(r *Row) { r.GetCapture().Vnis[0] = 0 }, "(capture c): field vnis: network id 0 is not within 1 to 16777215"},
		{"capture", func(r *Row) { r.GetCapture().Until = -5 }, "(capture c): field until: -5 is before 1970"},
		{"policy", func(r *Row) { r.GetPolicy().Rules[0].Peers[0].Name = "x" }, "(policy {5 3 ingress}): field rules.peers.name: set, but so is something else that the peer must match"},
		{"node", func(r *Row) { r.GetNode().Name = "" }, "(node): field name: empty"},
		{"node", func(r *Row) { r.GetNode().Name = long }, "(node): field name: 70000 bytes; at most 253"},
		{"node", func(r *Row) { r.GetNode().Name = "a\nb" }, "(node): field name: control character 0x0a"},
		{"node", func(r *Row) { r.GetNode().Address = nil }, "(node n1): field address: an address of 0 bytes; want 4 or 16"},
		{"node", func(r *Row) { r.GetNode().Address = make([]byte, 5) }, "(node n1): field address: an address of 5 bytes; want 4 or 16"},
		{"node", func(r *Row) { r.GetNode().Address = in46 }, "(node n1): field address: IPv4 address 10.0.0.1 in 16 bytes; want 4"},
		{"node", func(r *Row) { r.GetNode().Address = make([]byte, 4) }, "(node n1): field address: 0.0.0.0 is not the address of one host"},
		{"node", func(r *Row) { r.GetNode().Number = 65536 }, "(node n1): field number: 65536 is larger than 65535"},
		{"network", func(r *Row) { r.GetNetwork().Vni = 0 }, "(network): field vni: network id 0 is not within 1 to 16777215"},
		{"network", func(r *Row) { r.GetNetwork().Vni = 1 << 24 }, "(network): field vni: network id 16777216 is not within 1 to 16777215"},
		{"network", func(r *Row) { r.GetNetwork().Project = "" }, "(network 5): field project: empty"},
		{"network", func(r *Row) { r.GetNetwork().Mtu = 65536 }, "(network 5): field mtu: 65536 is larger than 65535"},
		{"network", func(r *Row) { r.GetNetwork().Prefixes[0] = nil }, "(network 5): field prefixes: a prefix of 0 bytes; want 4 or 16"},
		{"network", func(r *Row) { r.GetNetwork().Prefixes[0] = &Prefix{Address: ip4, Bits: 33} }, "(network 5): field prefixes: length 33; at most 32"},
		{"network", func(r *Row) { r.GetNetwork().Prefixes[0] = &Prefix{Address: ip4, Bits: 24} }, "(network 5): field prefixes: 10.0.0.1/24 has bits beyond its length; want 10.0.0.0/24"},
		{"network", func(r *Row) { r.GetNetwork().Prefixes[0] = &Prefix{Address: in46, Bits: 128} }, "(network 5): field prefixes: IPv4 prefix 10.0.0.1 in 16 bytes; want 4"},
		{"network", func(r *Row) { r.GetNetwork().Prefixes = []*Prefix{net4, net4} }, "(network 5): field prefixes: entry 1 (10.0.0.0/24) does not come after the one before it (10.0.0.0/24)"},
		{"network", func(r *Row) { r.GetNetwork().Prefixes = make([]*Prefix, maxItems+1) }, "(network 5): field prefixes: 65537 entries; at most 65536"},
		{"identity", func(r *Row) { r.GetIdentity().Number = 0 }, "(identity): field number: 0 is nobody"},
		{"identity", func(r *Row) { r.GetIdentity().Labels[1].Key = "a" }, "(identity 3): field labels: entry 1 ({a }) does not come after the one before it ({a })"},
		{"identity", func(r *Row) { r.GetIdentity().Labels[0] = nil; r.GetIdentity().Labels[1].Key = "" }, "(identity 3): field labels: entry 1 ({ }) does not come after the one before it ({ })"},
		{"endpoint", func(r *Row) { r.GetEndpoint().Vni = 0 }, "(endpoint): field vni: network id 0 is not within 1 to 16777215"},
		{"endpoint", func(r *Row) { r.GetEndpoint().Address = []byte{224, 0, 0, 1} }, "(endpoint): field address: 224.0.0.1 is not the address of one host"},
		{"endpoint", func(r *Row) { r.GetEndpoint().Mac = []byte{1} }, "(endpoint 5/10.0.0.1): field mac: 1 bytes; want 6"},
		{"endpoint", func(r *Row) { r.GetEndpoint().Mac = []byte{1, 0, 0, 0, 0, 1} }, "(endpoint 5/10.0.0.1): field mac: 01:00:00:00:00:01 is not the address of one interface"},
		{"endpoint", func(r *Row) { r.GetEndpoint().Mac = make([]byte, 6) }, "(endpoint 5/10.0.0.1): field mac: 00:00:00:00:00:00 is not the address of one interface"},
		{"endpoint", func(r *Row) { r.GetEndpoint().Node = "" }, "(endpoint 5/10.0.0.1): field node: empty"},
		{"block", func(r *Row) { r.GetBlock().Cidr = nil }, "(block): field cidr: a prefix of 0 bytes; want 4 or 16"},
		{"block", func(r *Row) { r.GetBlock().Excluded[0] = nil }, "(block {5 10.0.0.0/24}): field excluded: addresses of 0 and 0 bytes; want 4 or 16"},
		{"block", func(r *Row) { r.GetBlock().Excluded[0].Last = ip6 }, "(block {5 10.0.0.0/24}): field excluded: 10.0.0.1 to fd00::1 is of another address family than its block"},
		{"block", func(r *Row) { r.GetBlock().Excluded[0].Last = []byte{10, 0, 0, 0} }, "(block {5 10.0.0.0/24}): field excluded: 10.0.0.1 to 10.0.0.0 is no range"},
		{"block", func(r *Row) {
			r.GetBlock().Excluded = append(r.GetBlock().Excluded, &Range{First: []byte{10, 0, 0, 0}, Last: ip4})
		}, "(block {5 10.0.0.0/24}): field excluded: entry 1 does not come after the one before it"},
		{"grant", func(r *Row) { r.GetGrant().Network = "" }, "(grant): field network: empty"},
		{"grant", func(r *Row) { r.GetGrant().Error = "no" }, "(grant {p w n}): field error: set, but so are fields of an attachment that is allowed"},
		{"grant", func(r *Row) { r.GetGrant().Error = long }, "(grant {p w n}): field error: 70000 bytes; at most 16384"},
		{"grant", func(r *Row) { r.GetGrant().Vni = 0 }, "(grant {p w n}): field vni: network id 0 is not within 1 to 16777215"},
		{"grant", func(r *Row) { r.GetGrant().Addresses = [][]byte{ip6, ip4} }, "(grant {p w n}): field addresses: entry 1 (10.0.0.1) does not come after the one before it (fd00::1)"},
		{"policy", func(r *Row) { r.GetPolicy().Vni = 0 }, "(policy): field vni: network id 0 is not within 1 to 16777215"},
		{"policy", func(r *Row) { r.GetPolicy().DefaultId = ""; r.GetPolicy().DefaultAllow = true }, "(policy {5 3 ingress}): field default_id: empty; a default that allows must have an id"},
		{"policy", func(r *Row) { r.GetPolicy().Rules[0] = nil }, "(policy {5 3 ingress}): field rules.id: empty"},
		{"policy", func(r *Row) { r.GetPolicy().Rules[0].Tier = 3 }, "(policy {5 3 ingress}): field rules.tier: rule a is of tier 3; rules have 0 to 2"},
		{"policy", func(r *Row) { r.GetPolicy().Rules[0].Tier = 256 }, "(policy {5 3 ingress}): field rules.tier: rule a is of tier 256; rules have 0 to 2"},
		{"policy", func(r *Row) { r.GetPolicy().Rules[0].Action = 257 }, "(policy {5 3 ingress}): field rules.action: rule a has action 257; there are 0 to 2"},
		{"policy", func(r *Row) { r.GetPolicy().Rules[1].Action = 2 }, "(policy {5 3 ingress}): field rules.action: rule b passes, which only the admin tier can"},
		{"policy", func(r *Row) { r.GetPolicy().Rules[0].Tier, r.GetPolicy().Rules[0].Action = 2, 0 }, "(policy {5 3 ingress}): field rules: rule 1 (b) is of an earlier tier than the one before it"},
		{"policy", func(r *Row) { r.GetPolicy().Rules[0].Peers[0].Identities = []uint32{2, 1} }, "(policy {5 3 ingress}): field rules.peers.identities: entry 1 (1) does not come after the one before it (2)"},
		{"policy", func(r *Row) { r.GetPolicy().Rules[0].Peers[0].Identities = []uint32{0, 1} }, "(policy {5 3 ingress}): field rules.peers.identities: 0 is nobody, whom a rule cannot name"},
		{"policy", func(r *Row) { r.GetPolicy().Rules[0].Peers[0].Cidr = nil }, "(policy {5 3 ingress}): field rules.peers.except: exceptions without a cidr"},
		{"policy", func(r *Row) { r.GetPolicy().Rules[0].Peers[0].Except[0].Address = ip6 }, "(policy {5 3 ingress}): field rules.peers.except: fd00::1/32 is of another address family than 10.0.0.0/24"},
		{"policy", func(r *Row) { r.GetPolicy().Rules[1].Ports[0].Protocol = 256 }, "(policy {5 3 ingress}): field rules.ports.protocol: 256 is larger than 255"},
		{"policy", func(r *Row) { r.GetPolicy().Rules[1].Ports[0].Last = 65536 }, "(policy {5 3 ingress}): field rules.ports.last: 65536 is larger than 65535"},
		{"policy", func(r *Row) { r.GetPolicy().Rules[1].Ports[0].Last = 0 }, "(policy {5 3 ingress}): field rules.ports: 1 to 0 is no range"},
		{"node", func(r *Row) { r.Row = nil }, ": of no known kind; the other side may be newer than this one"},
	}...) {
		r := goodRows()[c.kind]
		c.change(r)
		_, err := ToSnapshot("n1", []*Row{r})
		want := "row 0 " + c.want
		if strings.HasPrefix(c.want, ":") {
			want = "row 0" + c.want
		}
		if err == nil || err.Error() != want {
			t.Errorf("%s: got  %v\n want %s", c.kind, err, want)
		}
	}
}

func TestTheSameKeyTwice(t *testing.T) {
	for kind, r := range goodRows() {
		_, err := ToSnapshot("n1", []*Row{r, proto.CloneOf(r)})
		if err == nil || !strings.Contains(err.Error(), "row 1 ("+kind) || !strings.Contains(err.Error(), "the same key before it") {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if _, err := ToSnapshot("n1", []*Row{nil}); err == nil {
		t.Error("nil row taken")
	}
}

func TestBadDeltas(t *testing.T) {
	row := goodRows()["node"]
	for name, c := range map[string]struct {
		in   []*Delta
		want string
	}{
		"no message":    {[]*Delta{nil}, `delta "": message: field version: empty`},
		"long version":  {[]*Delta{{Version: strings.Repeat("v", 65)}}, "field version: 65 bytes; at most 64"},
		"reset deletes": {[]*Delta{{Version: "v", Reset_: true, Delete: []*Row{row}}}, "a reset that deletes rows"},
		"both":          {[]*Delta{{Version: "v", Put: []*Row{row}, Delete: []*Row{row}}}, "node n1 is both put and deleted"},
		"both in parts": {[]*Delta{{Version: "v", Put: []*Row{row}, More: true}, {Version: "v", Delete: []*Row{row}}}, "node n1 is both put and deleted"},
		"twice":         {[]*Delta{{Version: "v", Put: []*Row{row}, More: true}, {Version: "v", Put: []*Row{row}}}, "put row 0 (node n1): there is a row with the same key before it"},
		"bad, then good": {[]*Delta{{Version: "v", Put: []*Row{{}}, More: true}, {Version: "v", Put: []*Row{row}, More: true}, {Version: "v"}},
			"put row 0: of no known kind"},
	} {
		j := NewJoiner("n1")
		for i, m := range c.in {
			d, err := j.Add(m)
			if i+1 < len(c.in) {
				if d != nil || err != nil {
					t.Errorf("%s: message %d: %v %v", name, i, d, err)
				}
				continue
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want %s", name, err, c.want)
			}
		}
		// The next delta is not touched by what was wrong with this one.
		if d, err := j.Add(&Delta{Version: "w", Put: []*Row{row}}); err != nil || count(&d.Put) != 1 {
			t.Errorf("%s: the next delta: %v %v", name, d, err)
		}
	}
}

func TestDeltaGivenUp(t *testing.T) {
	j := NewJoiner("n1")
	row := goodRows()["node"]
	if d, err := j.Add(&Delta{Version: "v", Put: []*Row{row}, More: true}); d != nil || err != nil {
		t.Fatal(d, err)
	}
	d, err := j.Add(&Delta{Version: "w", Reset_: true})
	if err != nil || d.Version != "w" || !d.Reset || count(&d.Put) != 0 {
		t.Fatalf("%v %v", d, err)
	}
}

func TestBadReports(t *testing.T) {
	at := func(name string) *Attachment { return &Attachment{Project: "p", Workload: name, Network: "n"} }
	for name, c := range map[string]struct {
		in   *Report
		want string
	}{
		"nothing":       {nil, "report: field address: an address of 0 bytes; want 4 or 16"},
		"agent":         {&Report{Address: ip4, Agent: "a\x00"}, "report: field agent: control character 0x00"},
		"order":         {&Report{Address: ip4, Attachments: []*Attachment{at("b"), at("a")}}, "report: field attachments: entry 1"},
		"twice":         {&Report{Address: ip4, Attachments: []*Attachment{at("a"), at("a")}}, "report: field attachments: entry 1"},
		"nil":           {&Report{Address: ip4, Attachments: []*Attachment{nil}}, "report: attachment 0: field project: empty"},
		"no network id": {&Report{Address: ip4, Attachments: []*Attachment{{Project: "p", Workload: "w", Network: "n", Addresses: [][]byte{ip4}}}}, "report: attachment 0: field vni"},
		"before 1970":   {&Report{Address: ip4, Attachments: []*Attachment{{Project: "p", Workload: "w", Network: "n", Since: -1}}}, "report: attachment 0: field since: -1 is before 1970"},
		"block":         {&Report{Address: ip4, Blocks: []*Block{nil}}, "report: block 0: field vni"},
		"many":          {&Report{Address: ip4, Blocks: make([]*Block, maxReports+1)}, "report: field blocks: 65537 entries; at most 65536"},
	} {
		if _, err := ToReport("n1", c.in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}

func TestBadRecords(t *testing.T) {
	for name, change := range map[string]func(*record.Record){
		"kind":     func(r *record.Record) { r.Kind = "x" },
		"observer": func(r *record.Record) { r.Observer = "" },
		"verdict":  func(r *record.Record) { r.Verdict = "maybe" },
		"id":       func(r *record.Record) { r.ID = "" },
		"latency":  func(r *record.Record) { r.Latency = -1 },
		"vni":      func(r *record.Record) { r.Source.VNI = 1 << 24 },
		"rule":     func(r *record.Record) { r.Rule = "\x1b[2J" },
		"label":    func(r *record.Record) { r.Source.Labels = map[string]string{"a": "\x1b"} },
		"workload": func(r *record.Record) { r.Destination.Workload = "a\nb" },
		"path":     func(r *record.Record) { r.Request = &record.Request{Path: "/\x1b[2J"} },
		"flags":    func(r *record.Record) { r.Request = &record.Request{Flags: []string{"U\nF"}} },
		"status":   func(r *record.Record) { r.Request = &record.Request{Status: 1000} },
		"upstream": func(r *record.Record) { r.Request = &record.Request{Upstream: -1} },
	} {
		r := someRecord()
		change(&r)
		b, err := FromRecords([]record.Record{r}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := ToRecords("n1", b[0]); err == nil || !strings.HasPrefix(err.Error(), "record 0: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range map[string]*RecordBatch{
		"many":    {Records: make([][]byte, MaxRecords+1)},
		"large":   {Records: [][]byte{[]byte(fmt.Sprintf("%q", strings.Repeat("x", MaxRecord)))}},
		"no JSON": {Records: [][]byte{[]byte("{")}},
		"empty":   {Records: [][]byte{nil}},
	} {
		if _, _, err := ToRecords("n1", b); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := FromRecords([]record.Record{{ID: strings.Repeat("x", MaxRecord)}}, 0); err == nil {
		t.Error("a record too large was encoded")
	}
}

func FuzzDecodeDelta(f *testing.F) {
	var all []*Row
	for _, r := range goodRows() {
		all = append(all, r)
	}
	for _, d := range []*Delta{{Version: "v", Reset_: true, Put: all}, {Version: "v", Delete: all}, {Version: "v", Put: []*Row{{}}}} {
		b, err := proto.Marshal(d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Delta
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		m.More = false
		d, err := NewJoiner("n1").Add(&m)
		if err != nil {
			return
		}
		// What was taken must survive another trip unchanged.
		old := &snapshot.Snapshot{Node: "n1"}
		before := old.Apply(d).Version()
		if after := old.Apply(join(t, d)).Version(); after != before {
			t.Fatalf("version %s, was %s", after, before)
		}
		for _, set := range d.Put.Policies {
			if len(set.Rules) < 4 {
				set.Flatten()
			}
		}
	})
}

func FuzzDecodeReport(f *testing.F) {
	b, err := proto.Marshal(&Report{Address: ip4, Attachments: []*Attachment{{Project: "p", Workload: "w", Network: "n", Vni: 5, Addresses: [][]byte{ip6}}}, Blocks: []*Block{{Vni: 5, Cidr: net4}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Report
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		r, err := ToReport("n1", &m)
		if err != nil {
			return
		}
		again, err := ToReport("n1", FromReport(&r))
		if err != nil || fmt.Sprint(again) != fmt.Sprint(r) {
			t.Fatalf("%v: %v, was %v", err, again, r)
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	b, err := FromRecords([]record.Record{someRecord()}, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[0].Records[0])
	f.Fuzz(func(t *testing.T, b []byte) {
		rs, _, err := ToRecords("n1", &RecordBatch{Records: [][]byte{b}})
		if err != nil {
			return
		}
		again, err := FromRecords(rs, 0)
		if err != nil && !strings.Contains(err.Error(), "at most") {
			t.Fatal(err)
		}
		if err == nil {
			if _, _, err := ToRecords("n1", again[0]); err != nil {
				t.Fatal(err)
			}
		}
	})
}
