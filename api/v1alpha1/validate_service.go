package v1alpha1

import (
	"fmt"
	"regexp"
)

var externalName = regexp.MustCompile(`^([A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?\.?$`)

// ValidateService says what is wrong with a Service.
func ValidateService(s *Service) []Problem {
	j := newJudge("Service", s.Namespace, s.Name, true)
	spec := &s.Spec
	if len(spec.Networks) == 0 {
		j.add(CodeMissing, "spec.networks", "write at least one, such as - network: main", "the networks are missing")
	}
	if j.count("spec.networks", len(spec.Networks), 16) {
		j.serviceNetworks(spec.Networks)
	}
	if len(spec.Ports) == 0 {
		j.add(CodeMissing, "spec.ports", "write at least one, such as - port: 80", "the ports are missing")
	}
	j.servicePorts(spec.Ports, 32)
	behind := 0
	for _, there := range []bool{spec.Selector != nil, spec.Endpoints != nil, spec.ExternalName != ""} {
		if there {
			behind++
		}
	}
	if behind != 1 {
		j.add(CodeBackends, "spec", "write one of selector, endpoints and externalName", "a Service has exactly one of selector, endpoints and externalName, not %d", behind)
	}
	j.selector("spec.selector", spec.Selector)
	j.endpoints(spec.Endpoints)
	j.length("spec.externalName", spec.ExternalName, 253)
	if n := spec.ExternalName; n != "" && !externalName.MatchString(n) {
		j.add(CodeDNSName, "spec.externalName", "write a name such as db.example.com", "%q is not a DNS name", n)
	}
	j.number("spec.affinitySeconds", spec.AffinitySeconds, 0, 86400)
	if spec.Locality != "" {
		j.choice("spec.locality", spec.Locality, LocalityAny, LocalityNode, LocalityZone)
	}
	if j.count("spec.drain", len(spec.Drain), 256) {
		j.set("spec.drain", spec.Drain)
		for i, d := range spec.Drain {
			j.length(fmt.Sprintf("spec.drain[%d]", i), d, 253)
		}
	}
	j.health("spec.health", spec.Health)
	return j.problems
}

func (j *judge) serviceNetworks(list []ServiceNetwork) {
	seen := map[string]int{}
	for i := range list {
		n := &list[i]
		field := fmt.Sprintf("spec.networks[%d]", i)
		if first, twice := seen[n.Network]; twice && n.Network != "" {
			j.add(CodeRepeated, field+".network", "give that one both addresses", "networks[%d] is Network %s too", first, n.Network)
		}
		seen[n.Network] = i
		j.networkName(field, "", n.Network)
		j.addresses(field+".addresses", n.Addresses, "a Service has at most one IPv4 and one IPv6 address in a Network")
	}
}

func (j *judge) servicePorts(list []ServicePort, limit int) {
	if !j.count("spec.ports", len(list), limit) {
		return
	}
	type port struct {
		protocol string
		number   int32
	}
	seen, names := map[port]int{}, map[string]bool{}
	for i := range list {
		p := &list[i]
		field := fmt.Sprintf("spec.ports[%d]", i)
		if p.Name != "" {
			if len(p.Name) > 63 || !portName.MatchString(p.Name) {
				j.add(CodeName, field+".name", "use at most 63 lower case letters, digits and '-'", "%q is not the name of a port", p.Name)
			}
			if names[p.Name] {
				j.warn(CodeRepeated, field+".name", "give each port a name of its own", "another port has the name %q too, so SRV records of it name both", p.Name)
			}
			names[p.Name] = true
		}
		if p.Protocol != "" {
			j.choice(field+".protocol", p.Protocol, "TCP", "UDP", "SCTP")
		}
		if p.Port == 0 {
			j.add(CodeMissing, field+".port", "write a number from 1 to 65535", "the port is missing")
		} else {
			j.number(field+".port", p.Port, 1, 65535)
		}
		if p.TargetPort != 0 {
			j.number(field+".targetPort", p.TargetPort, 1, 65535)
		}
		if p.AppProtocol != "" {
			j.choice(field+".appProtocol", p.AppProtocol, AppProtocols...)
		}
		id := port{p.Protocol, p.Port}
		if first, twice := seen[id]; twice && p.Port != 0 {
			j.add(CodePortTwice, field+".port", "give each port and protocol once", "ports[%d] is %s port %d too", first, p.Protocol, p.Port)
		}
		seen[id] = i
	}
}

var portName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

func (j *judge) endpoints(list []ServiceEndpoint) {
	if list != nil && len(list) == 0 {
		j.add(CodeMissing, "spec.endpoints", "write at least one, or leave the list out", "the list is empty")
	}
	if !j.count("spec.endpoints", len(list), 256) {
		return
	}
	for i := range list {
		e := &list[i]
		field := fmt.Sprintf("spec.endpoints[%d]", i)
		j.oneAddress(field+".address", e.Address, true)
		if e.Weight != 0 {
			j.number(field+".weight", e.Weight, 1, 1000)
		}
		j.length(field+".zone", e.Zone, 63)
	}
}

// oneAddress checks one IP address.
func (j *judge) oneAddress(field, text string, required bool) {
	if text == "" {
		if required {
			j.add(CodeMissing, field, "write an IP address, such as 192.0.2.7", "the address is missing")
		}
		return
	}
	if _, err := parseIP(text); err != nil {
		j.add(CodeAddress, field, "write an IP address without a prefix length, such as 192.0.2.7", "%s", err)
	}
}

// ValidateFloatingIP says what is wrong with a FloatingIP.
func ValidateFloatingIP(f *FloatingIP) []Problem {
	j := newJudge("FloatingIP", f.Namespace, f.Name, true)
	spec := &f.Spec
	j.networkName("spec.pool", spec.Pool.Project, spec.Pool.Network)
	j.oneAddress("spec.address", spec.Address, false)
	if j.count("spec.targets", len(spec.Targets), 64) {
		seen := map[[2]string]int{}
		for i := range spec.Targets {
			t := &spec.Targets[i]
			field := fmt.Sprintf("spec.targets[%d]", i)
			if t.Workload == "" {
				j.add(CodeMissing, field+".workload", "write the name of a Workload of the project", "the workload is missing")
			}
			j.length(field+".workload", t.Workload, 253)
			j.length(field+".network", t.Network, 253)
			j.number(field+".weight", t.Weight, 0, 1000)
			id := [2]string{t.Workload, t.Network}
			if first, twice := seen[id]; twice && t.Workload != "" {
				j.warn(CodeRepeated, field, "remove one, or add its weight to the other", "targets[%d] is Workload %s too", first, t.Workload)
			}
			seen[id] = i
		}
	}
	j.servicePorts(spec.Ports, 64)
	if j.count("spec.names", len(spec.Names), 16) {
		j.set("spec.names", spec.Names)
		for i, n := range spec.Names {
			field := fmt.Sprintf("spec.names[%d]", i)
			j.length(field, n, 253)
			if !externalName.MatchString(n) {
				j.add(CodeDNSName, field, "write a name such as shop.example.com", "%q is not a DNS name", n)
			}
		}
	}
	return j.problems
}
