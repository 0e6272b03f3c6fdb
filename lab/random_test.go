package lab

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"moire.dev/moire/node/local"
)

// workloadsStarted (R18): what a Workload asks once it is attached is answered,
// from the first time on; before, nothing that is denied comes through.
func (r *reliable) workloadsStarted(t *testing.T, _ *load) {
	r.repeat(t, 4, 1000, func(i int) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			m, node := r.tenants[i%2], r.Nodes[i/2%len(r.Nodes)].Name
			ctx, cancel := context.WithCancel(t.Context())
			name := fmt.Sprintf("start-%d", i)
			path, err := makeNetns(netnsOf(m.domain+"-p", name))
			if err != nil {
				t.Fatal(err)
			}
			early := make(chan struct{})
			go func() { // it has begun to ask before it is attached
				defer close(early)
				k := &talker{from: guest{netns: path}, target: netip.AddrPortFrom(m.apis[i%2].addrs[0], 8080).String()}
				for ctx.Err() == nil {
					k.once(ctx, "GET", "/admin/early", 403, "")
					k.close()
					time.Sleep(time.Millisecond)
				}
			}()
			g := r.attach(t, node, m.domain+"-p", "net", name, "app=web")
			for _, vip := range vips {
				k := &talker{from: g, target: vip.String(), says: m.domain}
				if err := k.once(ctx, "GET", "/cart", 200, m.domain); err != nil {
					t.Errorf("the first request of %s on %s to %s: %v", name, node, vip, err)
				}
				if err := k.once(ctx, "GET", "/admin/x", 403, ""); err != nil {
					t.Error(err)
				}
				k.close()
			}
			cancel()
			<-early
		})
	})
}

// operations that may happen at any time.
func (r *reliable) operations(t *testing.T, w *load) []func(i int) {
	node := func() *Node { return r.Nodes[rand.N(len(r.Nodes))] }
	return []func(int){
		func(i int) { r.policy(t, i) },
		func(i int) { r.policy(t, i) },
		func(int) {
			n := node()
			if err := n.Agent.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := r.StartAgent(context.Background(), n); err != nil {
				t.Fatal(err)
			}
		},
		func(int) { r.must(t, "proxy", "upgrade", "--run-dir", r.RunDir, "--node", node().Name) },
		func(int) {
			pid := r.proxy(t, node())
			w.spare(time.Now(), time.Second)
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		},
		func(int) {
			if err := r.Control.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := r.StartControl(context.Background()); err != nil {
				t.Fatal(err)
			}
			r.settle(t)
		},
		func(i int) {
			m := r.tenants[i%2]
			t.Run("attach", func(t *testing.T) { r.attach(t, node().Name, m.domain+"-p", "net", "guest", "app=web") })
		},
	}
}

// operated (R13): after random operations and kills the kernel side and the
// proxies are what a new agent makes of the snapshot, and a row that somebody
// plants is taken away.
func (r *reliable) operated(t *testing.T, w *load) {
	r.repeat(t, 8, 10000, func(i int) {
		all := r.operations(t, w)
		all[rand.N(len(all))](i)
	})
	r.policy(t, 0)
	r.settle(t)
	before := map[string]string{}
	for _, n := range r.Nodes {
		before[n.Name] = r.state(t, n)
		if err := n.Agent.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := r.StartAgent(context.Background(), n); err != nil {
			t.Fatal(err)
		}
	}
	r.settle(t)
	for _, n := range r.Nodes {
		r.same(t, n, before[n.Name], "a new agent")
	}
	planted := r.Nodes[1]
	r.plant(t, planted)
	for _, n := range r.Nodes { // each compares every 10 s
		var st local.Status
		for began := time.Now(); time.Since(began) < 14*time.Second; time.Sleep(200 * time.Millisecond) {
			var err error
			if st, err = local.NewClient(local.Socket(r.RunDir, n.Name)).Status(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n != planted || st.Repairs > 0 {
				break
			}
		}
		if (st.Repairs > 0) != (n == planted) {
			t.Errorf("node %s: %d repairs, %q", n.Name, st.Repairs, st.LastRepair)
		}
		r.same(t, n, before[n.Name], "what was planted")
	}
}

// volatile is what traffic and time change in the state of a node, certificates
// too, and the numbers of hash tables, which are others after a backend has gone
// and come back.
var volatile = regexp.MustCompile(`(?m)^(\{|(session|drops|events|datapath|proxy) ).*\n|"chain": .*| table=\d+`)

// state of the kernel side of a node, and of its proxy.
func (r *reliable) state(t *testing.T, n *Node) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(r.Bin, "moire-node"), "dump", "--name", n.Name, "--run-dir", r.RunDir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return volatile.ReplaceAllString(string(out)+r.must(t, "proxy", "config", "--run-dir", r.RunDir, "--node", n.Name), "")
}

// same: the state is what it was.
func (r *reliable) same(t *testing.T, n *Node, want, after string) {
	t.Helper()
	got := r.state(t, n)
	if got == want {
		return
	}
	was, is := strings.Split(want, "\n"), strings.Split(got, "\n")
	for _, line := range was {
		if !slices.Contains(is, line) {
			t.Errorf("%s after %s: not there any more: %.300s", n.Name, after, line)
		}
	}
	for _, line := range is {
		if !slices.Contains(was, line) {
			t.Errorf("%s after %s: new: %.300s", n.Name, after, line)
		}
	}
}

// plant puts a stray row beside each row of a table.
func (r *reliable) plant(t *testing.T, n *Node) {
	t.Helper()
	for _, name := range []string{"endpoints", "frontends"} {
		paths, err := filepath.Glob(filepath.Join(r.RunDir, "bpf", n.Name, "layout-*", name))
		if err != nil || len(paths) != 1 {
			t.Fatal(name, paths, err)
		}
		table, err := ebpf.LoadPinnedMap(paths[0], nil)
		if err != nil {
			t.Fatal(err)
		}
		defer table.Close()
		var key, row []byte
		it := table.Iterate()
		if !it.Next(&key, &row) {
			t.Fatalf("%s has no rows: %v", name, it.Err())
		}
		key = bytes.Clone(key)
		key[7] ^= 0x55 // another address
		if err := table.Update(key, row, ebpf.UpdateNoExist); err != nil {
			t.Fatal(err)
		}
	}
}
