package datapath

import (
	"fmt"
	"net/netip"
	"strings"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// Rules that say what the node itself serves and asks.
const (
	rulePlatform                          = "platform/"
	ruleNames, ruleMetadata policy.RuleID = rulePlatform + "names", rulePlatform + "metadata"
	ruleHealth              policy.RuleID = rulePlatform + "health"
)

// wantPresences adds the interfaces and endpoints of the node itself. Sessions
// to and from them are not judged by Policies; they never leave the node, but
// for those of its feet.
func (d *Datapath) wantPresences(w *want, s State) error {
	health, err := d.rules.number(ruleHealth)
	if err != nil {
		return err
	}
	for _, p := range s.Presence {
		ifindex, err := interfaceIndex(p.Host)
		if err != nil {
			return err
		}
		if ifindex == 0 {
			w.missing = append(w.missing, p.Host)
			continue
		}
		n, known := s.Snapshot.Networks[p.VNI]
		w.ifaces[uint32(ifindex)] = bpf.MoireIface{
			Vni: uint32(p.VNI), Mac: p.MAC, Mtu: uint32(d.MTU(n.MTU)), Closed: flag(!known),
		}
		w.links[p.Host] = ifindex
		if !known {
			continue
		}
		for ip, rule := range map[netip.Addr]policy.RuleID{
			snapshot.NameServer4: ruleNames, snapshot.NameServer6: ruleNames, snapshot.Metadata4: ruleMetadata,
		} {
			a := snapshot.Addr{VNI: p.VNI, IP: ip}
			if e, taken := s.Snapshot.Endpoints[a]; taken {
				return fmt.Errorf("network %d: workload %s/%s has the address %s, which is the node's own; give it another", p.VNI, e.Project, e.Workload, ip)
			}
			number, err := d.rules.number(rule)
			if err != nil {
				return err
			}
			w.endpoint(a, bpf.MoireEndpoint{
				Ifindex: uint32(ifindex), Mac: p.MAC, How: howPlatform, Ingress: number, Egress: health,
			})
		}
	}
	return d.wantFeet(w, s)
}

// isPlatform: the rule is not of any Policy, and its name is kept.
func isPlatform(id policy.RuleID) bool { return strings.HasPrefix(string(id), rulePlatform) }
