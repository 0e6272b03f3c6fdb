package v1alpha1

import (
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	metadataURL = regexp.MustCompile(`^https?://[^/]+(/.*)?$`)
	zoneName    = regexp.MustCompile(`^([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)*[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	rate        = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?[kMG]?$`)
)

func (j *judge) consents(list []Consent) {
	if !j.count("spec.consents", len(list), 64) {
		return
	}
	for i := range list {
		c := &list[i]
		field := fmt.Sprintf("spec.consents[%d]", i)
		if c.Project == "" {
			j.add(CodeMissing, field+".project", `write a project, or "*" for every project of the Domain`, "the project is missing")
		}
		j.length(field+".project", c.Project, 63)
		j.length(field+".domain", c.Domain, 63)
		j.set(field+".for", c.For)
		for k, f := range c.For {
			j.choice(fmt.Sprintf("%s.for[%d]", field, k), f, ConsentLink, ConsentFloatingIP, ConsentAttach)
		}
		if c.For != nil && len(c.For) == 0 {
			j.warn(CodeChoice, field+".for", "write link, floatingIP or attach, or remove the consent", "it is for nothing")
		}
	}
}

func (j *judge) outside(o *Outside) {
	if o == nil {
		return
	}
	gateway := o.Mode == OutsideGateway
	if o.Mode != "" {
		j.choice("spec.outside.mode", o.Mode, OutsideNode, OutsideGateway)
	}
	switch {
	case gateway && (o.Gateways == nil || o.Addresses == nil):
		j.add(CodeEgress, "spec.outside.mode", "write both", "mode gateway needs gateways and addresses")
	case !gateway && (o.Gateways != nil || o.Addresses != nil):
		j.add(CodeEgress, "spec.outside", "write mode: gateway, or remove them", "gateways and addresses need mode gateway")
	}
	for _, l := range []struct {
		field string
		list  []string
		limit int
	}{{"spec.outside.gateways", o.Gateways, 16}, {"spec.outside.addresses", o.Addresses, 2}} {
		if l.list != nil && len(l.list) == 0 {
			j.add(CodeMissing, l.field, "write at least one", "the list is empty")
		}
		j.count(l.field, len(l.list), l.limit)
	}
	for i, g := range o.Gateways {
		j.length(fmt.Sprintf("spec.outside.gateways[%d]", i), g, 253)
	}
	if len(o.Addresses) <= 2 {
		j.addresses("spec.outside.addresses", o.Addresses, "a Network has at most one IPv4 and one IPv6 address outside")
	}
	j.ports("spec.outside.hosts", o.Hosts, 32)
}

func (j *judge) limit(field string, l *Limit) {
	if l == nil {
		return
	}
	for _, d := range []struct{ name, text string }{{"egress", l.Egress}, {"ingress", l.Ingress}} {
		if _, err := ParseRate(d.text); d.text != "" && (err != nil || len(d.text) > 20) {
			j.add(CodeRate, field+"."+d.name, "write bits per second, such as 100M or 1.5G", "%q is not a rate", d.text)
		}
	}
}

// ParseRate reads bits per second, such as 100M or 1.5G (powers of 1000). The
// empty text is 0: no limit.
func ParseRate(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	if !rate.MatchString(s) {
		return 0, fmt.Errorf("%q is not a rate such as 100M or 1.5G", s)
	}
	factor := 1.0
	switch s[len(s)-1] {
	case 'k':
		factor = 1e3
	case 'M':
		factor = 1e6
	case 'G':
		factor = 1e9
	}
	f, err := strconv.ParseFloat(strings.TrimRight(s, "kMG"), 64)
	if err != nil || f*factor > 1e18 {
		return 0, fmt.Errorf("%q is too large for a rate", s)
	}
	return uint64(math.Round(f * factor)), nil
}

func (j *judge) dns(d *DNS) {
	if d == nil {
		return
	}
	if d.Zone != "" {
		j.length("spec.dns.zone", d.Zone, 200)
		if !zoneName.MatchString(d.Zone) {
			j.add(CodeDNSName, "spec.dns.zone", "use lower case letters, digits, '-' and '.', without a full stop at the end", "%q is not a zone", d.Zone)
		}
	}
	if d.TTLSeconds != 0 {
		j.number("spec.dns.ttlSeconds", d.TTLSeconds, 1, 86400)
	}
	if d.Order != "" {
		j.choice("spec.dns.order", d.Order, "random", "fixed", "round-robin")
	}
	if j.count("spec.dns.search", len(d.Search), 8) {
		for i, s := range d.Search {
			j.length(fmt.Sprintf("spec.dns.search[%d]", i), s, 253)
		}
	}
	if j.count("spec.dns.records", len(d.Records), 512) {
		for i := range d.Records {
			j.record(fmt.Sprintf("spec.dns.records[%d]", i), &d.Records[i])
		}
	}
	if j.count("spec.dns.delegations", len(d.Delegations), 32) {
		zones := make([]string, len(d.Delegations))
		for i := range d.Delegations {
			zones[i] = d.Delegations[i].Zone
			j.delegation(fmt.Sprintf("spec.dns.delegations[%d]", i), &d.Delegations[i], slices.Index(zones, zones[i]) < i)
		}
	}
	if j.count("spec.dns.forward", len(d.Forward), 8) {
		j.servers("spec.dns.forward", d.Forward)
	}
	if d.NoForward && len(d.Forward) > 0 {
		j.warn(CodeServer, "spec.dns.forward", "remove forward or noForward", "noForward is set, so these servers are never asked")
	}
}

func (j *judge) delegation(field string, d *Delegation, twice bool) {
	switch {
	case d.Zone == "":
		j.add(CodeMissing, field+".zone", "write the zone that is delegated", "the zone is missing")
	case twice:
		j.add(CodeRepeated, field+".zone", "give that one all servers", "zone %s is there twice", d.Zone)
	case strings.HasSuffix(d.Zone, "."):
		j.add(CodeDNSName, field+".zone", "remove the full stop at the end", "%q ends with a full stop", d.Zone)
	}
	j.length(field+".zone", d.Zone, 253)
	if len(d.Servers) == 0 {
		j.add(CodeMissing, field+".servers", "write at least one address", "the servers are missing")
	}
	if j.count(field+".servers", len(d.Servers), 8) {
		j.servers(field+".servers", d.Servers)
	}
}

// ParseServer reads the address of a name server, address or address:port;
// the default port is 53.
func ParseServer(s string) (netip.AddrPort, error) {
	if a, err := parseIP(s); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 || ap.Addr().Zone() != "" || ap.Addr().Is4In6() {
		return netip.AddrPort{}, fmt.Errorf("%q is not address or address:port", s)
	}
	return ap, nil
}

func (j *judge) servers(field string, list []string) {
	for i, s := range list {
		if _, err := ParseServer(s); err != nil {
			j.add(CodeServer, fmt.Sprintf("%s[%d]", field, i), "write 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:53", "%s", err)
		}
	}
}

var recordTypes = []string{"A", "AAAA", "CNAME", "TXT", "SRV", "MX", "PTR", "NS", "CAA"}

func (j *judge) record(field string, r *DNSRecord) {
	for _, f := range []struct {
		name, text string
		limit      int
	}{{"name", r.Name, 253}, {"data", r.Data, 4096}} {
		if f.text == "" {
			j.add(CodeMissing, field+"."+f.name, "write it", "the %s is missing", f.name)
		}
		j.length(field+"."+f.name, f.text, f.limit)
	}
	if r.TTLSeconds != 0 {
		j.number(field+".ttlSeconds", r.TTLSeconds, 1, 604800)
	}
	if !slices.Contains(recordTypes, r.Type) {
		j.choice(field+".type", r.Type, recordTypes...)
		return
	}
	if r.Data == "" {
		return
	}
	// What cannot be such a record; what it means is for the name service.
	want := map[string]int{"A": 1, "AAAA": 1, "CNAME": 1, "PTR": 1, "NS": 1, "MX": 2, "SRV": 4}[r.Type]
	form := map[string]string{"A": "192.0.2.7", "AAAA": "2001:db8::7", "CNAME": "www.example.com.", "PTR": "www.example.com.",
		"NS": "ns.example.com.", "MX": "10 mail.example.com.", "SRV": "0 5 5060 sip.example.com."}[r.Type]
	words := strings.Fields(r.Data)
	bad := want != 0 && len(words) != want
	if !bad && (r.Type == "A" || r.Type == "AAAA") {
		a, err := parseIP(words[0])
		bad = err != nil || a.Is4() != (r.Type == "A")
	}
	for i := 0; !bad && i < want-1; i++ {
		_, err := strconv.ParseUint(words[i], 10, 16)
		bad = err != nil
	}
	if bad {
		j.add(CodeDNSData, field+".data", "write it as in a zone file, such as "+form, "%q is not the data of a record of type %s", r.Data, r.Type)
	}
}
