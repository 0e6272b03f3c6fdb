package v1alpha1

import (
	"fmt"
	"net/netip"
	"strings"
)

// ValidateLink says what is wrong with a Link.
func ValidateLink(l *Link) []Problem {
	j := newJudge("Link", l.Namespace, l.Name, true)
	if len(l.Spec.Ends) != 2 {
		j.add(CodeEnds, "spec.ends", "write the two Networks that are linked", "a Link has two ends, not %d", len(l.Spec.Ends))
	}
	seen := map[[2]string]bool{}
	for i := range l.Spec.Ends {
		e := &l.Spec.Ends[i]
		field := fmt.Sprintf("spec.ends[%d]", i)
		project := e.Project
		if project == "" {
			project = l.Namespace
		}
		j.networkName(field, e.Project, e.Network)
		if id := [2]string{project, e.Network}; e.Network != "" && seen[id] {
			j.add(CodeEnds, field+".network", "name two different Networks", "the Link has Network %s/%s at both ends", project, e.Network)
		} else {
			seen[id] = true
		}
		j.translations(field+".translate", e.Translate)
		if len(e.Translate) > 0 && len(l.Spec.Via) > 0 {
			j.add(CodeTranslation, field+".translate", "give the Networks prefixes that do not overlap, or remove via", "via and translate exclude each other")
		}
	}
	if l.Spec.OnFailure != "" {
		j.choice("spec.onFailure", l.Spec.OnFailure, OnFailureClosed, OnFailureBypass)
	}
	j.via(l.Spec.Via)
	return j.problems
}

// networkName checks the project, which may be left out, and name of a Network.
func (j *judge) networkName(field, project, network string) {
	j.length(field+".project", project, 63)
	if network == "" {
		j.add(CodeMissing, field+".network", "write the name of a Network", "the network is missing")
	}
	j.length(field+".network", network, 253)
}

func (j *judge) translations(field string, list []Translation) {
	if !j.count(field, len(list), 16) {
		return
	}
	var from, to []netip.Prefix
	for i, t := range list {
		at := fmt.Sprintf("%s[%d]", field, i)
		p, as := j.onePrefix(at+".prefix", t.Prefix), j.onePrefix(at+".as", t.As)
		if !p.IsValid() || !as.IsValid() {
			continue
		}
		if p.Bits() != as.Bits() || p.Addr().Is4() != as.Addr().Is4() {
			j.add(CodeTranslation, at+".as", "write a prefix of the same family and length", "%s cannot be seen as %s", p, as)
			continue
		}
		for k := range from {
			if from[k].Overlaps(p) || to[k].Overlaps(as) {
				j.add(CodeOverlap, at, "remove or shrink one of them", "%s as %s overlaps %s as %s", p, as, from[k], to[k])
			}
		}
		from, to = append(from, p), append(to, as)
	}
}

// onePrefix is the CIDR of a field; the zero Prefix when it is none, which is told.
func (j *judge) onePrefix(field, text string) netip.Prefix {
	if text == "" {
		j.add(CodeMissing, field, "write a CIDR without host bits, such as 10.0.0.0/24", "the prefix is missing")
		return netip.Prefix{}
	}
	p, err := ParsePrefix(text)
	if err != nil {
		j.add(CodeCIDR, field, "write a CIDR without host bits, such as 10.0.0.0/24", "%s", err)
	}
	return p
}

func (j *judge) via(list []Function) {
	if !j.count("spec.via", len(list), 8) {
		return
	}
	names := map[string]bool{}
	for i := range list {
		f := &list[i]
		field := fmt.Sprintf("spec.via[%d]", i)
		switch {
		case f.Name == "":
			j.add(CodeMissing, field+".name", "write a name that is unique in the chain", "the name is missing")
		case len(f.Name) > 63 || !ruleName.MatchString(f.Name):
			j.add(CodeName, field+".name", "use at most 63 lower case letters, digits and '-', beginning with a letter", "%q is not the name of a function", f.Name)
		case names[f.Name]:
			j.add(CodeRepeated, field+".name", "give each function a name of its own", "%q is there twice", f.Name)
		}
		names[f.Name] = true
		if len(f.Workloads.MatchLabels)+len(f.Workloads.MatchExpressions) == 0 {
			j.add(CodeSelector, field+".workloads", "write matchLabels or matchExpressions", "an empty selector would make every Workload a function")
		}
		j.selector(field+".workloads", &f.Workloads)
		if f.Mode != "" {
			j.choice(field+".mode", f.Mode, FunctionRouted, FunctionTransparent, FunctionNAT)
		}
		j.side(field+".left", f.Left)
		j.side(field+".right", f.Right)
		if f.Right == "" && i < len(list)-1 {
			j.add(CodeChain, field+".right", "write the Network between it and the next function", "only the last function may leave out right")
		}
		j.health(field+".health", f.Health)
	}
}

// side checks "network" or "project/network".
func (j *judge) side(field, text string) {
	j.length(field, text, 317)
	project, network, both := strings.Cut(text, "/")
	if text != "" && both && (project == "" || network == "" || strings.Contains(network, "/")) {
		j.add(CodeName, field, "write network or project/network", "%q names no Network", text)
	}
}

func (j *judge) health(field string, h *HealthCheck) {
	if h == nil {
		return
	}
	if h.Type != "" {
		j.choice(field+".type", h.Type, "icmp", "tcp", "http")
	}
	if h.Port != 0 {
		j.number(field+".port", h.Port, 1, 65535)
	}
	if h.Type != "icmp" && h.Port == 0 {
		j.add(CodeHealth, field+".port", "write the port that is checked, or type: icmp", "tcp and http checks need port")
	}
	j.length(field+".path", h.Path, 1024)
	for _, n := range []struct {
		name  string
		value int32
		most  int32
	}{{"intervalSeconds", h.IntervalSeconds, 3600}, {"timeoutSeconds", h.TimeoutSeconds, 60}, {"failures", h.Failures, 100}, {"successes", h.Successes, 100}} {
		if n.value != 0 {
			j.number(field+"."+n.name, n.value, 1, n.most)
		}
	}
}
