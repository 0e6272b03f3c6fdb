package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// counts of Services, of Policies and of Networks that are compared.
var counts = []int{10, 1_000, 10_000}

const (
	servicePort = 7777
	serverOne   = "10.1.0.10" // the server has two addresses: two backends
	serverTwo   = "10.1.0.11"
)

// serviceAddress of the i-th Service.
func serviceAddress(i int) string { return fmt.Sprintf("10.96.%d.%d", i>>8, i&255) }

// asked is the Service that is measured: in the middle.
func asked(n int) string { return serviceAddress(n / 2) }

// services compares what a session to a Service address costs, with ever more
// Services, against DNAT by nftables and iptables as kube-proxy writes it; then
// what ever more Policies and Networks cost; then one change.
func services(ctx context.Context, rounds int) (err error) {
	var close []func() error
	defer func() {
		for _, c := range slices.Backward(close) {
			err = errors.Join(err, c())
		}
		err = errors.Join(err, removePeers())
	}()
	plain, err := routed("p", "")
	if err != nil {
		return err
	}
	plain.name = "plain route"
	paths := []path{plain}
	for _, n := range counts {
		for _, peer := range []struct {
			name, tool string
			rules      func(int) string
		}{{"nftables", "nft", nftables}, {"iptables", "iptables-restore", iptables}} {
			if _, err := exec.LookPath(peer.tool); err != nil {
				fmt.Fprintf(os.Stderr, "without %s: %v\n", peer.name, err)
				continue
			}
			p, err := routed(fmt.Sprintf("%s%d", peer.name[:1], n), asked(n))
			if err != nil {
				return err
			}
			p.name = fmt.Sprintf("%s, %d Services", peer.name, n)
			if err := load(p.router, peer.tool, peer.rules(n)); err != nil {
				return err
			}
			paths = append(paths, p)
		}
	}
	var largest *world // of Services
	for _, kind := range []string{"Services", "Policies", "Networks"} {
		for _, n := range counts {
			w, err := newWorld(ctx, kind, n)
			if w != nil {
				close = append(close, w.close)
			}
			if err != nil {
				return err
			}
			if kind == "Services" && n == counts[0] {
				paths = append(paths, path{name: "Moiré, no Service", client: w.client, server: w.server, addr: serverOne})
			}
			addr := serverOne
			if kind == "Services" {
				addr, largest = asked(n), w
			}
			paths = append(paths, path{name: fmt.Sprintf("Moiré, %d %s", n, kind), client: w.client, server: w.server, addr: addr})
		}
	}
	if err := measureServices(ctx, rounds, paths); err != nil {
		return err
	}
	return oneChange(paths, largest)
}

// measureServices prints connection rates and round trips, as ratios to the
// first path of the same round.
func measureServices(ctx context.Context, rounds int, paths []path) error {
	conns, trips := make([][]float64, len(paths)), make([][]float64, len(paths))
	for round := range rounds {
		var first result
		for i, p := range paths {
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, rounds, p.name)
			stop, err := serve(ctx, p)
			if err != nil {
				return err
			}
			var r result
			if r.conns, err = inside(ctx, p.client, "conns", p.addr); err == nil {
				r.trips, err = inside(ctx, p.client, "trips", p.addr)
			}
			stop()
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			if i == 0 {
				first = r
			}
			conns[i], trips[i] = append(conns[i], r.conns/first.conns), append(trips[i], r.trips/first.trips)
		}
	}
	fmt.Println("| path | connection rate | round trips |")
	fmt.Println("|---|---|---|")
	for i, p := range paths {
		slices.Sort(conns[i])
		slices.Sort(trips[i])
		fmt.Printf("| %s | %.2f | %.2f |\n", p.name, conns[i][rounds/2], trips[i][rounds/2])
	}
	return nil
}

// oneChange prints how long it takes to give one Service among the most other
// backends.
func oneChange(paths []path, w *world) error {
	n := counts[len(counts)-1]
	median := func(one func(i int) (time.Duration, error)) (time.Duration, error) {
		var all []time.Duration
		for i := range 11 {
			took, err := one(i)
			if err != nil {
				return 0, err
			}
			all = append(all, took)
		}
		slices.Sort(all)
		return all[len(all)/2], nil
	}
	fmt.Printf("\n| one change among %d Services | time |\n|---|---|\n", n)
	for _, p := range paths {
		tool, change := "nft", nftChange
		switch p.name {
		case fmt.Sprintf("nftables, %d Services", n):
		case fmt.Sprintf("iptables, %d Services", n):
			tool, change = "iptables-restore", iptablesChange
		default:
			continue
		}
		t, err := median(func(i int) (time.Duration, error) {
			began := time.Now()
			err := load(p.router, tool, change(n/2, i))
			return time.Since(began), err
		})
		if err != nil {
			return err
		}
		fmt.Printf("| %s, the tool included | %s |\n", p.name, t.Round(100*time.Microsecond))
	}
	var rows uint64
	whole, err := median(func(i int) (time.Duration, error) { return w.change(n/2, i, &rows) })
	if err != nil {
		return err
	}
	look, err := median(func(int) (time.Duration, error) { return w.again() })
	if err != nil {
		return err
	}
	fmt.Printf("| Moiré, %d Services: %d rows written | %s |\n", n, rows, (whole - look).Round(10*time.Microsecond))
	fmt.Printf("| and to find out what changed in the snapshot | %s |\n", look.Round(10*time.Microsecond))
	return nil
}

// routed makes a client, a router and a server.
func routed(tag, addr string) (path, error) {
	p := path{client: prefix + "-" + tag + "c", server: prefix + "-" + tag + "s", router: prefix + "-" + tag + "r", addr: addr}
	if addr == "" {
		p.addr = serverOne
	}
	return p, sh(strings.NewReplacer("CLIENT", p.client, "SERVER", p.server, "ROUTER", p.router).Replace(`
for n in CLIENT SERVER ROUTER; do ip netns add $n; ip -n $n link set lo up; done
ip -n CLIENT link add e0 type veth peer name c netns ROUTER
ip -n SERVER link add e0 type veth peer name s netns ROUTER
ip -n CLIENT addr add 10.2.0.2/24 dev e0; ip -n SERVER addr add 10.1.0.10/24 dev e0; ip -n SERVER addr add 10.1.0.11/24 dev e0
ip -n ROUTER addr add 10.2.0.1/24 dev c; ip -n ROUTER addr add 10.1.0.1/24 dev s
for l in "CLIENT e0" "SERVER e0" "ROUTER c" "ROUTER s"; do set -- $l; ip -n $1 link set $2 up; done
ip -n CLIENT route add default via 10.2.0.1; ip -n SERVER route add default via 10.1.0.1
ip netns exec ROUTER sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
ip netns exec ROUTER nft 'table ip f { chain through { type filter hook forward priority 0; ct state established,related accept; ct state new accept; drop; }; }'
`))
}

// load gives rules to a tool inside a namespace.
func load(ns, tool, rules string) error {
	args := []string{"netns", "exec", ns, tool}
	if tool == "nft" {
		args = append(args, "-f", "-")
	} else {
		args = append(args, "--noflush")
	}
	cmd := exec.Command("ip", args...)
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %.500s", tool, err, out)
	}
	return nil
}

// nftables is what kube-proxy writes in its mode of that name.
func nftables(n int) string {
	var b, elements strings.Builder
	b.WriteString("table ip kube-proxy {\n chain mark-for-masquerade { meta mark set meta mark or 0x4000; }\n")
	for i := range n {
		for j, s := range []string{serverOne, serverTwo} {
			fmt.Fprintf(&b, " chain endpoint-%d-%d { ip saddr %s jump mark-for-masquerade; meta l4proto tcp dnat to %s:%d; }\n", i, j, s, s, servicePort)
		}
		fmt.Fprintf(&b, " chain service-%d { ip daddr %s tcp dport %d ip saddr != 10.0.0.0/8 jump mark-for-masquerade; numgen random mod 2 vmap { 0 : goto endpoint-%d-0, 1 : goto endpoint-%d-1 }; }\n",
			i, serviceAddress(i), servicePort, i, i)
		fmt.Fprintf(&elements, "%s . tcp . %d : goto service-%d,\n", serviceAddress(i), servicePort, i)
	}
	fmt.Fprintf(&b, " map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; elements = { %s } }\n", elements.String())
	b.WriteString(` chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
 chain masquerading { meta mark and 0x4000 == 0 return; masquerade fully-random; }
 chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
 chain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }
}
`)
	return b.String()
}

func nftChange(i, round int) string {
	return fmt.Sprintf("flush chain ip kube-proxy service-%d\nadd rule ip kube-proxy service-%d numgen random mod 2 vmap { 0 : goto endpoint-%d-%d, 1 : goto endpoint-%d-%d }\n",
		i, i, i, round%2, i, 1-round%2)
}

// iptables is what kube-proxy writes in its mode of that name.
func iptables(n int) string {
	var chains, rules strings.Builder
	for i := range n {
		fmt.Fprintf(&chains, ":KUBE-SVC-%d - [0:0]\n", i)
		fmt.Fprintf(&rules, "-A KUBE-SERVICES -m comment --comment \"bench/s%d cluster IP\" -m tcp -p tcp -d %s/32 --dport %d -j KUBE-SVC-%d\n", i, serviceAddress(i), servicePort, i)
		rules.WriteString(iptablesService(i))
		for j, s := range []string{serverOne, serverTwo} {
			fmt.Fprintf(&chains, ":KUBE-SEP-%d-%d - [0:0]\n", i, j)
			fmt.Fprintf(&rules, "-A KUBE-SEP-%d-%d -s %s/32 -j KUBE-MARK-MASQ\n-A KUBE-SEP-%d-%d -m tcp -p tcp -j DNAT --to-destination %s:%d\n", i, j, s, i, j, s, servicePort)
		}
	}
	return "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n" + chains.String() +
		"-A PREROUTING -j KUBE-SERVICES\n-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n" + rules.String() + "COMMIT\n"
}

func iptablesService(i int) string {
	return fmt.Sprintf("-A KUBE-SVC-%d -m statistic --mode random --probability 0.5 -j KUBE-SEP-%d-0\n-A KUBE-SVC-%d -j KUBE-SEP-%d-1\n", i, i, i, i)
}

func iptablesChange(i, _ int) string {
	return fmt.Sprintf("*nat\n:KUBE-SVC-%d - [0:0]\n%sCOMMIT\n", i, iptablesService(i))
}
