package datapath

import (
	"moire.dev/moire/datapath/bpf"
)

// How packets get to an endpoint or by a hop, as in tables.h.
const (
	howTap         = 1  // by a device of its own
	howLimited     = 2  // within a limit
	howPlatform    = 4  // the node's own
	howFunction    = 8  // a network function
	howOutside     = 16 // no network
	howTransparent = 32 // a function that nobody addresses
	howFoot        = 64 // of the node's own: one that other nodes know
)

// Flags of a session, and kinds and flags of its guises, as in tables.h.
const (
	flagClosed = 8
	flagEnded  = 16
	flagOdd    = 32

	guiseService  = 1
	guiseFloating = 3

	guiseAway = 1
)

// tables are the maps that the agent writes and the programs read.
type tables struct {
	control   *table[uint32, bpf.MoireSettings]
	ifaces    *table[uint32, bpf.MoireIface]
	networks  *table[uint32, uint32]
	endpoints *table[bpf.MoireAddrKey, bpf.MoireEndpoint]
	guises    *table[bpf.MoireGuiseKey, bpf.MoireAddr]
	chains    *table[bpf.MoireChainKey, bpf.MoireChain]
	functions *table[bpf.MoireFunctionKey, bpf.MoireHop]
	routes    *table[bpf.MoireRouteKey, uint32]
	nodes     *table[uint32, bpf.MoireNode]
	vteps     *table[bpf.MoireAddr, uint32]
	rates     *table[bpf.MoireRateKey, bpf.MoireRate]
	watches   *table[uint32, bpf.MoireWatch]
	watchVNIs *table[uint32, uint32]
	watchEnds *table[bpf.MoireAddrKey, uint32]

	proxies   *table[uint64, bpf.MoireProxy]
	groups    *table[uint64, uint64]
	stands    *table[uint64, bpf.MoireStand]
	frontends *table[bpf.MoireFrontendKey, uint32]

	outlook     *table[uint32, bpf.MoireOutlook]
	exits       *table[uint32, bpf.MoireExit]
	masquerades *table[bpf.MoireAddrKey, bpf.MoireMasquerade]
	fronts      *table[bpf.MoireAddr, bpf.MoireFront]
	hosts       *table[bpf.MoireAddr, uint32]
	hostPorts   *table[bpf.MoireHostPortKey, uint32]
}

func newTables(m *bpf.MoireMaps, writes *tally) *tables {
	return &tables{
		control:   newTable[uint32, bpf.MoireSettings](m.Control, "control", writes),
		ifaces:    newTable[uint32, bpf.MoireIface](m.Ifaces, "ifaces", writes),
		networks:  newTable[uint32, uint32](m.Networks, "networks", writes),
		endpoints: newTable[bpf.MoireAddrKey, bpf.MoireEndpoint](m.Endpoints, "endpoints", writes),
		guises:    newTable[bpf.MoireGuiseKey, bpf.MoireAddr](m.Guises, "guises", writes),
		chains:    newTable[bpf.MoireChainKey, bpf.MoireChain](m.Chains, "chains", writes),
		functions: newTable[bpf.MoireFunctionKey, bpf.MoireHop](m.Functions, "functions", writes),
		routes:    newTable[bpf.MoireRouteKey, uint32](m.Routes, "routes", writes),
		nodes:     newTable[uint32, bpf.MoireNode](m.Nodes, "nodes", writes),
		vteps:     newTable[bpf.MoireAddr, uint32](m.Vteps, "vteps", writes),
		rates:     newTable[bpf.MoireRateKey, bpf.MoireRate](m.Rates, "rates", writes),
		watches:   newTable[uint32, bpf.MoireWatch](m.Watches, "watches", writes),
		watchVNIs: newTable[uint32, uint32](m.WatchVnis, "watch_vnis", writes),
		watchEnds: newTable[bpf.MoireAddrKey, uint32](m.WatchEnds, "watch_ends", writes),

		proxies:   newTable[uint64, bpf.MoireProxy](m.Proxies, "proxies", writes),
		groups:    newTable[uint64, uint64](m.Groups, "groups", writes),
		stands:    newTable[uint64, bpf.MoireStand](m.Stands, "stands", writes),
		frontends: newTable[bpf.MoireFrontendKey, uint32](m.Frontends, "frontends", writes),

		outlook:     newTable[uint32, bpf.MoireOutlook](m.Outlooks, "outlooks", writes),
		exits:       newTable[uint32, bpf.MoireExit](m.Exits, "exits", writes),
		masquerades: newTable[bpf.MoireAddrKey, bpf.MoireMasquerade](m.Masquerades, "masquerades", writes),
		fronts:      newTable[bpf.MoireAddr, bpf.MoireFront](m.Fronts, "fronts", writes),
		hosts:       newTable[bpf.MoireAddr, uint32](m.Hosts, "hosts", writes),
		hostPorts:   newTable[bpf.MoireHostPortKey, uint32](m.HostPorts, "host_ports", writes),
	}
}

func (t *tables) read() error {
	return inOrder(
		t.control.read, t.ifaces.read, t.networks.read, t.endpoints.read, t.guises.read, t.chains.read, t.functions.read, t.routes.read, t.nodes.read, t.vteps.read, t.rates.read,
		t.watches.read, t.watchVNIs.read, t.watchEnds.read,
		t.proxies.read, t.groups.read, t.stands.read, t.frontends.read,
		t.outlook.read, t.exits.read, t.masquerades.read, t.fronts.read, t.hosts.read, t.hostPorts.read,
	)
}

func newRules(m *bpf.MoireMaps, writes *tally) (*ruleBook, error) {
	return newRuleBook(newTable[uint32, bpf.MoireRuleName](m.Rules, "rules", writes))
}

func newSets(m *bpf.MoireMaps, rules *ruleBook, writes *tally) (*setBook, error) {
	b := &setBook{
		rules:   rules,
		sets:    newTable[uint32, bpf.MoireSetRow](m.Sets, "sets", writes),
		classes: newTable[bpf.MoireRouteKey, uint32](m.Classes, "classes", writes),
		entries: newTable[bpf.MoirePolicyKey, bpf.MoireVerdict](m.Policy, "policy", writes),
	}
	return b, b.load()
}
