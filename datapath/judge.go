package datapath

import (
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf"

	"moire.dev/moire/datapath/bpf"
)

// Action is what the program does with a packet.
type Action string

// Actions.
const (
	// Deliver to an interface of this node.
	Deliver Action = "deliver"
	// Send to another node, in VXLAN.
	Send Action = "send"
	// Answer the sender: ARP, neighbour discovery, a gateway's echo, or an error.
	Answer Action = "answer"
	// Ignore: none of ours, the packet goes on as if there were no program.
	Ignore Action = "ignore"
	// Drop.
	Drop Action = "drop"
)

// Judgement is what the program in the kernel says about one packet.
type Judgement struct {
	Action Action
	// Allow: it was delivered or sent.
	Allow bool
	// Rule that decided, and the ingress rule when that was asked here too.
	Rule, IngressRule string
	// Shadow is the rule that would decide if what is audited were enforced,
	// and ShadowAllow what it would say; empty when that is no different.
	Shadow      string
	ShadowAllow bool
	// Drop is the reason when it was not a rule.
	Drop string
	// Packet as it leaves the program.
	Packet []byte
}

// Uplink as the interface of Judge means a packet from another node.
const Uplink = "uplink"

// judgeObjects are the programs with the tables of the node, but sessions,
// events and counters of their own, so that asking leaves no trace.
type judgeObjects struct {
	bpf.MoireObjects
	epoch uint32
}

// Judge asks the program of this node, in the kernel, about a packet (an
// Ethernet frame) that comes from an interface, by host side name, or from
// Uplink. Packets asked about before count as seen: a reply is allowed after
// its request was.
func (d *Datapath) Judge(from string, packet []byte) (Judgement, error) {
	return d.judged(from, packet, 0)
}

// JudgeSpoken is Judge about a packet that a socket of a proxy has made.
func (d *Datapath) JudgeSpoken(from string, packet []byte) (Judgement, error) {
	return d.judged(from, packet, markSpoken)
}

func (d *Datapath) judged(from string, packet []byte, mark uint32) (j Judgement, err error) {
	err = d.locked(func() error {
		if d.judge == nil {
			if d.judge, err = d.loadJudge(); err != nil {
				return err
			}
		}
		ifindex, program := d.uplink.Index, d.judge.FromUnderlay
		if from != Uplink {
			program = d.judge.FromWorkload
			if ifindex, err = interfaceIndex(from); err != nil {
				return err
			}
			if ifindex == 0 {
				return fmt.Errorf("no interface %s", from)
			}
		}
		// Another epoch each time: the program says again why it allows.
		c := d.tables.control.rows[0]
		d.judge.epoch++
		c.Epoch, c.Share, c.Watch = d.judge.epoch, math.MaxUint32, 0
		if err = d.judge.Control.Put(uint32(0), &c); err != nil {
			return err
		}
		j, err = d.run(program, skb{Ifindex: uint32(ifindex), Mark: mark}, packet)
		return err
	})
	if err != nil {
		return j, fmt.Errorf("judge a packet from %s on node %s: %w", from, d.cfg.Node, err)
	}
	return j, nil
}

// Forget makes Judge forget the packets that it was asked about.
func (d *Datapath) Forget() error {
	return d.locked(func() error {
		if d.judge == nil {
			return nil
		}
		return errors.Join(empty[bpf.MoireSessionKey, bpf.MoireSession](d.judge.Sessions),
			empty[bpf.MoireSessionKey, bpf.MoireSession](d.judge.Crowd),
			empty[bpf.MoireSessionKey, bpf.MoireAlias](d.judge.Aliases),
			empty[bpf.MoireSessionKey, bpf.MoireAlias](d.judge.Throng),
			empty[bpf.MoireFragmentKey, bpf.MoirePorts](d.judge.Fragments))
	})
}

func empty[K comparable, V any](m *ebpf.Map) error {
	rows, err := readMap[K, V](m)
	if err != nil {
		return err
	}
	for k := range rows {
		if err := m.Delete(&k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

func (d *Datapath) loadJudge() (*judgeObjects, error) {
	spec, err := bpf.LoadMoire()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"sessions", "aliases", "crowd", "throng"} {
		spec.Maps[name].MaxEntries = 4096
	}
	if err := spec.Variables["asking"].Set(uint32(1)); err != nil {
		return nil, err
	}
	m := &d.objects.MoireMaps
	j := &judgeObjects{}
	err = spec.LoadAndAssign(&j.MoireObjects, &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		"ifaces": m.Ifaces, "networks": m.Networks, "endpoints": m.Endpoints, "guises": m.Guises, "chains": m.Chains, "functions": m.Functions, "routes": m.Routes,
		"nodes": m.Nodes, "vteps": m.Vteps, "classes": m.Classes, "policy": m.Policy, "sets": m.Sets, "rules": m.Rules,
		"outlooks": m.Outlooks, "exits": m.Exits, "masquerades": m.Masquerades, "fronts": m.Fronts, "hosts": m.Hosts, "host_ports": m.HostPorts,
		"services": m.Services, "slots": m.Slots, "backends": m.Backends, "proxies": m.Proxies, "frontends": m.Frontends,
	}})
	if err != nil {
		return nil, explain(err)
	}
	return j, nil
}

// skb is struct __sk_buff up to tstamp, as BPF_PROG_RUN takes and gives it.
type skb struct {
	Len, PktType, Mark, QueueMapping, Protocol, VlanPresent, VlanTci, VlanProto, Priority uint32
	IngressIfindex, Ifindex, TcIndex                                                      uint32
	Cb                                                                                    [5]uint32
	Rest                                                                                  [32]uint32
}

// mark of a judgement in cb, see judged in events.h.
const judgementMark = 0x4d6f0000

// markSpoken is MARK_SPOKEN of mesh.h.
const markSpoken = 1

func (d *Datapath) run(p *ebpf.Program, in skb, packet []byte) (Judgement, error) {
	var j Judgement
	if len(packet) < 14 {
		return j, errors.New("it is shorter than an Ethernet header")
	}
	out := skb{}
	options := &ebpf.RunOptions{Data: packet, DataOut: make([]byte, len(packet)+256), Context: in, ContextOut: &out}
	ret, err := p.Run(options)
	if err != nil {
		return j, err
	}
	j.Packet = options.DataOut
	reason := uint32(0)
	if out.Cb[0]&0xffff0000 == judgementMark {
		reason = out.Cb[0] & 0xffff
		j.Rule, j.IngressRule = string(d.rules.names[out.Cb[1]]), string(d.rules.names[out.Cb[2]])
		j.Shadow, j.ShadowAllow = string(d.rules.names[out.Cb[4]&0x7fffffff]), out.Cb[4]>>31 != 0
	}
	if j.Rule == "" || isJudged(reason) && j.IngressRule != "" {
		j.Rule = j.IngressRule
	}
	switch int32(ret) {
	case -1:
		j.Action = Ignore
	case 7: // TC_ACT_REDIRECT
		switch {
		case out.Cb[3] != 0:
			j.Action, j.Drop = Answer, reasonName(reason)
		case len(j.Packet) > len(packet):
			j.Action, j.Allow = Send, true
		default:
			j.Action, j.Allow = Deliver, true
		}
	default:
		j.Action = Drop
		if reason != reasonPolicy {
			j.Drop = reasonName(reason)
		}
	}
	return j, nil
}
