package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"moire.dev/moire/api/v1alpha1"
)

// world is what stage 3 does to Workloads and nodes beside attaching them.
type world struct {
	patience time.Time // until when a Check may try again
	servers  map[string]net.Listener
	ill      map[string]bool // project/workload
	away     map[string]bool // nodes
	made     map[string]bool // functions that are furnished
}

func newWorld() world {
	return world{servers: map[string]net.Listener{}, ill: map[string]bool{}, away: map[string]bool{}, made: map[string]bool{}}
}

// notice is how long nodes and control plane have for a change of the world.
const notice = 15 * time.Second

// Health stops or starts what answers the health checks of a Workload.
func (r *real) Health(workload string, well bool) error {
	if r.attached[workload] == "" {
		return fmt.Errorf("%s is not attached", workload)
	}
	r.ill[workload] = !well
	ignore := "0"
	if !well {
		ignore = "1"
	}
	err := InNetns(r.netns(workload), func() error {
		return errors.Join(os.WriteFile("/proc/sys/net/ipv4/icmp_echo_ignore_all", []byte(ignore), 0), os.WriteFile("/proc/sys/net/ipv6/icmp/echo_ignore_all", []byte(ignore), 0))
	})
	r.patience = time.Now().Add(notice)
	return errors.Join(err, r.furnish())
}

// Away kills the agent of a node, or starts it again.
func (r *real) Away(node string, away bool) error {
	for _, n := range r.lab.Nodes {
		if n.Name != node {
			continue
		}
		r.patience = time.Now().Add(notice)
		if away {
			r.away[node] = true
			return ignoreKilled(n.Agent.Kill())
		}
		delete(r.away, node)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return r.lab.StartAgent(ctx, n)
	}
	return fmt.Errorf("there is no node %s", node)
}

func ignoreKilled(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Answer makes the name server outside say that.
func (r *real) Answer(name string, addrs []netip.Addr) error {
	r.names.set(name, addrs)
	r.patience = time.Now().Add(notice)
	return nil
}

// recover ends what was done to the world.
func (r *real) recover() {
	r.names.forget()
	for key, l := range r.servers {
		l.Close()
		delete(r.servers, key)
	}
	for node := range r.away {
		if err := r.Away(node, false); err != nil {
			r.t.Error(err)
		}
	}
}

// checked is one health check of one Workload.
type checked struct {
	workload string
	kind     string
	port     int32
}

// furnish starts what health checks look for in each attached Workload that is
// well, stops the rest, and makes functions of those that are.
func (r *real) furnish() error {
	wanted := map[string]checked{}
	want := func(project string, s *metav1.LabelSelector, h *v1alpha1.HealthCheck) {
		sel, err := metav1.LabelSelectorAsSelector(s)
		if h == nil || h.Type == "icmp" || err != nil {
			return
		}
		for name := range r.attached {
			w, _ := r.present["Workload "+name].(*v1alpha1.Workload)
			if w != nil && w.Namespace == project && sel.Matches(labels.Set(w.Labels)) && !r.ill[name] {
				wanted[fmt.Sprintf("%s %d", name, h.Port)] = checked{name, h.Type, h.Port}
			}
		}
	}
	for _, o := range r.present {
		switch o := o.(type) {
		case *v1alpha1.Service:
			if o.Spec.Selector != nil {
				want(o.Namespace, o.Spec.Selector, o.Spec.Health)
			}
		case *v1alpha1.Link:
			for i := range o.Spec.Via {
				want(o.Namespace, &o.Spec.Via[i].Workloads, o.Spec.Via[i].Health)
			}
		}
	}
	for key, l := range r.servers {
		if _, still := wanted[key]; !still {
			l.Close()
			delete(r.servers, key)
		}
	}
	for key, c := range wanted {
		if r.servers[key] != nil {
			continue
		}
		l, err := serveHealth(r.netns(c.workload), c.port)
		if err != nil {
			return fmt.Errorf("answer the health checks of %s: %w", c.workload, err)
		}
		r.servers[key] = l
		r.patience = time.Now().Add(notice)
	}
	return r.furnishFunctions()
}

// serveHealth answers connections and GET until the listener is closed.
func serveHealth(netns string, port int32) (l net.Listener, err error) {
	err = InNetns(netns, func() error {
		return free(func() (err error) { l, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); return err })
	})
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }), ReadHeaderTimeout: time.Second}
	go server.Serve(l) // ends with the listener
	return l, nil
}

// furnishFunctions makes real network functions of the attached Workloads that
// a Link goes through: a firewall that routes, one that hides, or a bridge.
func (r *real) furnishFunctions() error {
	for _, o := range r.present {
		l, ok := o.(*v1alpha1.Link)
		if !ok {
			continue
		}
		left := l.Spec.Ends[0].Network
		for i := range l.Spec.Via {
			f := &l.Spec.Via[i]
			right := f.Right
			if right == "" {
				right = l.Spec.Ends[1].Network
			}
			sel, err := metav1.LabelSelectorAsSelector(&f.Workloads)
			if err != nil {
				return err
			}
			for name := range r.attached {
				w, _ := r.present["Workload "+name].(*v1alpha1.Workload)
				if w == nil || !sel.Matches(labels.Set(w.Labels)) {
					continue
				}
				if err := r.furnishFunction(l, f, name, left, right); err != nil {
					return fmt.Errorf("make a function of %s: %w", name, err)
				}
			}
			left = right
		}
	}
	return nil
}

func (r *real) furnishFunction(l *v1alpha1.Link, f *v1alpha1.Function, workload, left, right string) error {
	key := workload + " " + r.attached[workload] + " " + f.Mode
	if r.made[key] {
		return nil
	}
	prefixes := func(network string) []netip.Prefix {
		n, _ := r.present["Network "+l.Namespace+"/"+network].(*v1alpha1.Network)
		var out []netip.Prefix
		if n != nil {
			for _, p := range n.Spec.Prefixes {
				out = append(out, netip.MustParsePrefix(p))
			}
		}
		return out
	}
	err := InNetns(r.netns(workload), func() error {
		li, err := interfaceIn(prefixes(left))
		if err != nil {
			return err
		}
		ri, err := interfaceIn(prefixes(right))
		if err != nil {
			return err
		}
		if f.Mode == v1alpha1.FunctionTransparent {
			return sh(fmt.Sprintf("ip link add br0 type bridge stp_state 0 mcast_snooping 0; ip link set %s master br0; ip link set %s master br0; ip link set br0 up", li, ri))
		}
		lines := []string{"sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0",
			fmt.Sprintf("sysctl -qw net.ipv4.conf.%s.rp_filter=0 net.ipv4.conf.%s.rp_filter=0", li, ri)}
		// Routes to both ends are there: it has them from the node.
		// Stateful: what it has not seen begin does not pass.
		table := "table inet moire_t {\nchain forward {\ntype filter hook forward priority 0; policy drop;\nct state invalid drop\nct state new,established,related accept\n}\n}\n"
		if f.Mode == v1alpha1.FunctionNAT {
			table += fmt.Sprintf("table inet moire_n {\nchain post {\ntype nat hook postrouting priority 100;\noifname %q masquerade\n}\n}\n", ri)
		}
		file := filepath.Join(r.t.TempDir(), "rules.nft")
		if err := os.WriteFile(file, []byte(table), 0o644); err != nil {
			return err
		}
		return sh(strings.Join(append(lines, "nft -f "+file), "\n"))
	})
	r.made[key] = err == nil
	return err
}

// interfaceIn is the interface of this namespace with an address in one of the
// prefixes.
func interfaceIn(prefixes []netip.Prefix) (string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, i := range all {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && slices.ContainsFunc(prefixes, func(x netip.Prefix) bool { return x.Contains(p.Addr()) }) {
				return i.Name, nil
			}
		}
	}
	return "", fmt.Errorf("no interface has an address in %v", prefixes)
}
