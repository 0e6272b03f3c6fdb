package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"moire.dev/moire/lab"
)

// path is one way from a client namespace to a server namespace.
type path struct {
	name           string
	client, server string // namespaces
	addr           string // of the server, or of a Service
	router         string // namespace between them, if any
}

const prefix = "moire-b"

// sh runs lines of ip and nft commands.
func sh(lines string) error {
	cmd := exec.Command("sh", "-ec", lines)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// peers makes every path that is not Moiré.
func peers() ([]path, error) {
	r := strings.NewReplacer("NS", prefix)
	err := sh(r.Replace(`
for n in vc vs  lc ls lb  cc cs cb  xc xs xa xb  yc ys ya yb; do ip netns add NS-$n; ip -n NS-$n link set lo up; done

# raw veth: the limit
ip -n NS-vc link add e0 type veth peer name e0 netns NS-vs
ip -n NS-vc addr add 10.1.0.1/24 dev e0; ip -n NS-vs addr add 10.1.0.2/24 dev e0
ip -n NS-vc link set e0 up; ip -n NS-vs link set e0 up

# one node, Linux bridge; then the same with connection tracking
for p in l c; do
  ip -n NS-${p}b link add br0 type bridge; ip -n NS-${p}b link set br0 up
  for w in c s; do
    ip -n NS-$p$w link add e0 type veth peer name $w netns NS-${p}b
    ip -n NS-${p}b link set $w master br0 up; ip -n NS-$p$w link set e0 up
  done
  ip -n NS-${p}c addr add 10.1.0.1/24 dev e0; ip -n NS-${p}s addr add 10.1.0.2/24 dev e0
done
track() { # bridged packets pass the IP hooks (br_netfilter), as in common SDNs
  nft="ip netns exec $1 nft"
  ip netns exec $1 sh -c 'echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables'
  $nft add table ip f
  $nft 'add chain ip f through { type filter hook forward priority 0; }'
  $nft add rule ip f through ct state established,related accept
  $nft add rule ip f through ct state new accept
  $nft add rule ip f through drop
}
track NS-cb

ip netns exec NS-lb sh -c 'echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables'

# two nodes, Linux bridge and kernel VXLAN; then with connection tracking
for p in x y; do
  ip -n NS-${p}a link add up0 type veth peer name up0 netns NS-${p}b
  ip -n NS-${p}a addr add 198.18.79.1/24 dev up0; ip -n NS-${p}b addr add 198.18.79.2/24 dev up0
  for n in a b; do
    w=c; me=1; you=2; [ $n = b ] && { w=s; me=2; you=1; }
    ip -n NS-$p$n link set up0 up
    ip -n NS-$p$n link add vx0 type vxlan id 7 dstport 4789 local 198.18.79.$me remote 198.18.79.$you dev up0
    ip -n NS-$p$n link add br0 type bridge; ip -n NS-$p$n link set br0 up
    ip -n NS-$p$n link set vx0 master br0 up
    ip -n NS-$p$w link add e0 type veth peer name w0 netns NS-$p$n
    ip -n NS-$p$n link set w0 master br0 up
    ip -n NS-$p$w link set e0 mtu 1450 up; ip -n NS-$p$w addr add 10.1.0.$me/24 dev e0
  done
done
for n in a b; do ip netns exec NS-x$n sh -c 'echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables'; track NS-y$n; done
`))
	return []path{
		{name: "raw veth", client: prefix + "-vc", server: prefix + "-vs", addr: "10.1.0.2"},
		{name: "one node: Linux bridge", client: prefix + "-lc", server: prefix + "-ls", addr: "10.1.0.2"},
		{name: "one node: Linux bridge + conntrack", client: prefix + "-cc", server: prefix + "-cs", addr: "10.1.0.2"},
		{name: "two nodes: bridge + VXLAN", client: prefix + "-xc", server: prefix + "-xs", addr: "10.1.0.2"},
		{name: "two nodes: bridge + VXLAN + conntrack", client: prefix + "-yc", server: prefix + "-ys", addr: "10.1.0.2"},
	}, err
}

func removePeers() error {
	names, err := filepath.Glob("/run/netns/" + prefix + "-*")
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range names {
		errs = append(errs, sh("ip netns del "+filepath.Base(n)))
	}
	return errors.Join(errs...)
}

const intent = `
apiVersion: moire.dev/v1alpha1
kind: Domain
metadata: {name: bench}
---
apiVersion: v1
kind: Namespace
metadata: {name: bench, labels: {moire.dev/domain: bench}}
---
apiVersion: moire.dev/v1alpha1
kind: Network
metadata: {name: net, namespace: bench}
spec:
  prefixes: [10.1.0.0/24]
  static: [10.1.0.10-10.1.0.19]
  default: deny
---
apiVersion: moire.dev/v1alpha1
kind: Policy
metadata: {name: open-to-clients, namespace: bench}
spec:
  ingress:
    - name: from-clients
      action: allow
      from: [{labels: {matchLabels: {role: client}}}]
  egress:
    - name: to-servers
      action: allow
      to: [{labels: {matchLabels: {role: server}}}]
`

// ours makes a lab of two nodes with a client on n1 and servers on n1 and n2,
// under a policy that denies by default.
func ours(ctx context.Context, bin string) (*lab.Lab, []path, error) {
	l, err := lab.New(lab.Config{
		Name: prefix, Bin: bin, Direct: true, Underlay: netip.MustParsePrefix("198.18.75.0/24"), RunDir: "/run/moire-bench", APIListen: "127.0.0.1:17443",
		Progress: func(s string) { fmt.Fprintln(os.Stderr, "-", s) },
	})
	if err != nil {
		return nil, nil, err
	}
	if err := l.Up(ctx); err != nil {
		return l, nil, err
	}
	moire := filepath.Join(bin, "moire")
	apply := exec.CommandContext(ctx, moire, "apply", "--kubeconfig", l.Kubeconfig(), "-f", "-")
	apply.Stdin = strings.NewReader(intent)
	if out, err := apply.CombinedOutput(); err != nil {
		return l, nil, fmt.Errorf("apply: %w: %s", err, out)
	}
	var paths []path
	for _, w := range []struct{ name, node, role string }{{"mc", "n1", "client"}, {"ms1", "n1", "server"}, {"ms2", "n2", "server"}} {
		ns := prefix + "-" + w.name
		if err := sh("ip netns add " + ns + "; ip -n " + ns + " link set lo up"); err != nil {
			return l, nil, err
		}
		attach := exec.CommandContext(ctx, moire, "attach", "--run-dir", l.RunDir, "--node", w.node, "--netns", ns,
			"--project", "bench", "--network", "net", "--name", w.name, "--label", "role="+w.role, "-o", "json")
		var errs strings.Builder
		attach.Stderr = &errs
		out, err := attach.Output()
		if err != nil {
			return l, nil, fmt.Errorf("attach %s: %w: %s", w.name, err, errs.String())
		}
		addr, err := firstAddress(out)
		if err != nil {
			return l, nil, err
		}
		switch w.name {
		case "ms1":
			paths = append(paths, path{name: "one node: Moiré", client: prefix + "-mc", server: ns, addr: addr})
		case "ms2":
			paths = append(paths, path{name: "two nodes: Moiré", client: prefix + "-mc", server: ns, addr: addr})
		}
	}
	return l, paths, nil
}
