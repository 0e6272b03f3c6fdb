package v1alpha1

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
)

// Validate says what is wrong with one object, looking at nothing else. It
// refuses whatever the schema and the CEL rules of the CRD refuse, with the
// same fields, and besides that what they cannot see. Objects that are not
// ours have no Problems. Default the object first.
func Validate(o runtime.Object) []Problem {
	switch o := o.(type) {
	case *Domain:
		return ValidateDomain(o)
	case *Network:
		return ValidateNetwork(o)
	case *Workload:
		return ValidateWorkload(o)
	case *Policy:
		return ValidatePolicy(o)
	case *Node:
		return ValidateNode(o)
	case *Link:
		return ValidateLink(o)
	case *Service:
		return ValidateService(o)
	case *FloatingIP:
		return ValidateFloatingIP(o)
	case *BackendPolicy:
		return ValidateBackendPolicy(o)
	case *FaultPolicy:
		return ValidateFaultPolicy(o)
	}
	return nil
}

// judge collects the Problems of one object.
type judge struct {
	object   string
	problems []Problem
}

func (j *judge) add(code, field, fix, format string, args ...any) {
	j.problems = append(j.problems, Problem{Code: code, Object: j.object, Field: field, Reason: fmt.Sprintf(format, args...), Fix: fix})
}

func (j *judge) warn(code, field, fix, format string, args ...any) {
	j.add(code, field, fix, format, args...)
	j.problems[len(j.problems)-1].Warning = true
}

// dnsName is what the API server asks of names: RFC 1123 subdomain.
var dnsName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// newJudge checks what all kinds share.
func newJudge(kind, project, name string, namespaced bool) *judge {
	j := &judge{object: kind + " " + name}
	if namespaced {
		j.object = kind + " " + project + "/" + name
		if project == "" {
			j.object = kind + " " + name
			j.add(CodeMissing, "metadata.namespace", "write the project to which it belongs", "the namespace is missing")
		}
	} else if project != "" {
		j.add(CodeUnknownField, "metadata.namespace", "remove it", "a %s belongs to no project", kind)
	}
	switch {
	case name == "":
		j.add(CodeMissing, "metadata.name", "write a name", "the name is missing")
	case len(name) > 253 || !dnsName.MatchString(name):
		j.add(CodeName, "metadata.name", "use at most 253 lower case letters, digits, '-' and '.', beginning and ending with a letter or digit", "%q is not a name", name)
	}
	return j
}

func (j *judge) length(field, s string, limit int) {
	if len([]rune(s)) > limit {
		j.add(CodeTooMuch, field, fmt.Sprintf("use at most %d characters", limit), "it has %d characters", len([]rune(s)))
	}
}

func (j *judge) count(field string, n, limit int) bool {
	if n > limit {
		j.add(CodeTooMuch, field, fmt.Sprintf("use at most %d", limit), "it has %d entries", n)
	}
	return n <= limit
}

func (j *judge) choice(field, s string, words ...string) {
	if slices.Contains(words, s) {
		return
	}
	j.add(CodeChoice, field, "write "+strings.Join(words[:len(words)-1], ", ")+" or "+words[len(words)-1], "%q is not one of the words that it may be", s)
}

func (j *judge) number(field string, n, low, high int32) {
	if n < low || n > high {
		j.add(CodeNumber, field, fmt.Sprintf("use a number from %d to %d", low, high), "%d is out of range", n)
	}
}

// set: no entry may be there twice.
func (j *judge) set(field string, list []string) {
	for i, s := range list {
		if first := slices.Index(list, s); first < i {
			j.add(CodeRepeated, fmt.Sprintf("%s[%d]", field, i), "remove one", "%q is there twice", s)
		}
	}
}

// parseIP reads what the CEL function isIP accepts.
func parseIP(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", s)
	case a.Zone() != "":
		return netip.Addr{}, fmt.Errorf("%q has a zone", s)
	case a.Is4In6():
		return netip.Addr{}, fmt.Errorf("%q is an IPv4 address in IPv6 form", s)
	}
	return a, nil
}

// ValidateNetwork says what is wrong with a Network.
func ValidateNetwork(n *Network) []Problem {
	j := newJudge("Network", n.Namespace, n.Name, true)
	prefixes := j.prefixes(n.Spec.Prefixes)
	for _, l := range []struct {
		field string
		list  []string
		limit int
	}{{"spec.allocation", n.Spec.Allocation, 32}, {"spec.reserved", n.Spec.Reserved, 64}, {"spec.static", n.Spec.Static, 64},
		{"spec.services", n.Spec.Services, 16}, {"spec.floating", n.Spec.Floating, 16}} {
		if j.count(l.field, len(l.list), l.limit) {
			j.ranges(l.field, l.list, prefixes)
		}
	}
	if n.Spec.Default != "" {
		j.choice("spec.default", n.Spec.Default, DefaultOpen, DefaultDeny)
	}
	if n.Spec.MTU != 0 {
		j.number("spec.mtu", n.Spec.MTU, 1280, 9000)
	}
	j.consents(n.Spec.Consents)
	j.outside(n.Spec.Outside)
	j.dns(n.Spec.DNS)
	if m := n.Spec.Metadata; m != "" {
		j.length("spec.metadata", m, 300)
		if !metadataURL.MatchString(m) {
			j.add(CodeURL, "spec.metadata", "write http://host:port, with a path if you like", "%q is not the URL of an endpoint", m)
		}
	}
	j.limit("spec.limit", n.Spec.Limit)
	return j.problems
}

// prefixes checks spec.prefixes and returns those that are good.
func (j *judge) prefixes(list []string) []netip.Prefix {
	if len(list) == 0 {
		j.add(CodeMissing, "spec.prefixes", "write at least one prefix, such as 10.0.0.0/24", "the prefixes are missing")
	}
	if !j.count("spec.prefixes", len(list), 16) {
		return nil
	}
	var good []netip.Prefix
	for i, text := range list {
		field := fmt.Sprintf("spec.prefixes[%d]", i)
		p, err := ParsePrefix(text)
		if err != nil {
			j.add(CodeCIDR, field, "write a CIDR without host bits, such as 10.0.0.0/24 or fd00::/64", "%s", err)
			continue
		}
		if k := slices.IndexFunc(good, p.Overlaps); k >= 0 {
			j.add(CodeOverlap, field, "remove or shrink one of them", "%s overlaps %s of the same Network", p, good[k])
			continue
		}
		good = append(good, p)
	}
	return good
}

func (j *judge) ranges(field string, list []string, prefixes []netip.Prefix) {
	for i, text := range list {
		at := fmt.Sprintf("%s[%d]", field, i)
		r, err := ParseRange(text)
		if err != nil {
			j.add(CodeRange, at, "write a CIDR, an address or first-last, such as 10.0.0.10-10.0.0.20", "%s", err)
			continue
		}
		if len(prefixes) > 0 && !slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return RangeOf(p).Overlaps(r) }) {
			j.warn(CodeOutside, at, "correct the range or add a prefix", "%s is outside every prefix, so it has no effect", text)
		}
	}
}

var (
	accountName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)
	macText     = regexp.MustCompile(`^([0-9a-f]{2}:){5}[0-9a-f]{2}$`)
)

// ValidateWorkload says what is wrong with a Workload.
func ValidateWorkload(w *Workload) []Problem {
	j := newJudge("Workload", w.Namespace, w.Name, true)
	if a := w.Spec.Account; a != "" {
		j.length("spec.account", a, 63)
		if !accountName.MatchString(a) {
			j.add(CodeName, "spec.account", "use lower case letters, digits, '-' and '.'", "%q is not an account", a)
		}
	}
	j.length("spec.node", w.Spec.Node, 253)
	j.mtls("spec.mtls", w.Spec.MTLS)
	if len(w.Spec.Interfaces) == 0 {
		j.add(CodeMissing, "spec.interfaces", "write at least one, such as - network: main", "the interfaces are missing")
	}
	if !j.count("spec.interfaces", len(w.Spec.Interfaces), 8) {
		return j.problems
	}
	seen := map[string]int{}
	for i := range w.Spec.Interfaces {
		iface := &w.Spec.Interfaces[i]
		field := fmt.Sprintf("spec.interfaces[%d]", i)
		if iface.Network == "" {
			j.add(CodeMissing, field+".network", "write the name of a Network of the project", "the network is missing")
		} else if first, twice := seen[iface.Network]; twice {
			j.add(CodeRepeated, field+".network", "a Workload has one interface in each Network; give that one both addresses", "interfaces[%d] is in Network %s too", first, iface.Network)
		}
		seen[iface.Network] = i
		j.length(field+".network", iface.Network, 317)
		j.limit(field+".limit", iface.Limit)
		j.addresses(field+".addresses", iface.Addresses, "an interface has at most one IPv4 and one IPv6 address")
		if iface.MAC != "" && !macText.MatchString(iface.MAC) {
			j.add(CodeMAC, field+".mac", "write it as 02:00:00:00:00:01, in lower case", "%q is not a MAC address", iface.MAC)
		}
	}
	return j.problems
}

// addresses checks addresses of which there may be one of each family.
func (j *judge) addresses(field string, list []string, most string) {
	if !j.count(field, len(list), 2) {
		return
	}
	families := map[bool]string{}
	for i, text := range list {
		at := fmt.Sprintf("%s[%d]", field, i)
		a, err := parseIP(text)
		if err != nil {
			j.add(CodeAddress, at, "write an IP address without a prefix length, such as 10.0.0.5", "%s", err)
			continue
		}
		if first, twice := families[a.Is6()]; twice {
			j.add(CodeAddress, at, most, "%s and %s are of one family", first, text)
		}
		families[a.Is6()] = text
	}
}
