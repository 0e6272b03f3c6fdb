package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"moire.dev/moire/lab"
)

// path is one way from a client process to a server process.
type path struct {
	name     string
	client   string // guest
	addr     string // that it calls
	proxies  []int  // processes on the way
	upstream int    // process
}

// paths are all ways, the first without anything between the namespaces.
func (b *bench) paths(ctx context.Context) (all []path, err error) {
	all = append(all, b.direct("raw veth", "raw", near))
	for _, where := range []string{near, far} {
		all = append(all, b.direct("no proxy, "+told[where], plain, where))
	}
	if err := b.needEnvoys(ctx); err != nil {
		return nil, err
	}
	for _, name := range []string{near, far, streams} {
		p, err := b.enveloped(ctx, name)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	for _, where := range []string{near, far} {
		p, err := b.meshed(ctx, where)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

var told = map[string]string{near: "one node", far: "two nodes", streams: "two nodes, HTTP/2 between them"}

// direct is a path without proxies.
func (b *bench) direct(name, tenant, where string) path {
	server := guest(tenant, where)
	return path{name: name, client: guest(tenant, "client"), addr: net.JoinHostPort(b.addresses[server], upstreamPort), upstream: b.upstreams[server]}
}

// enveloped is a path through a pair of Envoys.
func (b *bench) enveloped(ctx context.Context, name string) (path, error) {
	server := map[string]string{near: near, far: far, streams: far}[name]
	p := b.direct("Envoy pair, "+told[name], plain, server)
	p.addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(envoyOut[name]))
	p.proxies = []int{b.envoys["client"].Pid(), b.envoys[server].Pid()}
	return p, b.answers(ctx, p, "/p0/128", http.StatusOK)
}

// meshed is a path through the mesh; it makes the tenant's Workloads if they are
// not there.
func (b *bench) meshed(ctx context.Context, where string) (path, error) {
	if b.addresses[guest(mesh, "client")] == "" {
		if err := b.attach(ctx, mesh); err != nil {
			return path{}, err
		}
	}
	p := b.direct("Moiré's mesh, "+told[where], mesh, where)
	p.addr = net.JoinHostPort(services[where], "80")
	// A rule about requests, and one that denies: both must be in force.
	if err := errors.Join(b.answers(ctx, p, "/p0/128", http.StatusOK), b.answers(ctx, p, "/admin/128", http.StatusForbidden)); err != nil {
		return p, err
	}
	for _, node := range map[string][]string{near: {"n1"}, far: {"n1", "n2"}}[where] {
		pid, err := b.proxyOf(ctx, node)
		if err != nil {
			return p, err
		}
		p.proxies = append(p.proxies, pid)
	}
	return p, nil
}

// proxyOf is the proxy of a node, put on the core of the proxies. It has one worker,
// because its agent was started on one core.
func (b *bench) proxyOf(ctx context.Context, node string) (int, error) {
	all, err := b.clients[node].Proxies(ctx)
	if err != nil {
		return 0, err
	}
	if len(all) != 1 || !all[0].Up {
		return 0, fmt.Errorf("node %s has the proxies %+v, not one that is up", node, all)
	}
	if out, err := exec.CommandContext(ctx, "taskset", "-acp", "0", strconv.Itoa(all[0].PID)).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("taskset: %w: %s", err, out)
	}
	return all[0].PID, nil
}

// answers waits until a path gives a request the status that it must have.
func (b *bench) answers(ctx context.Context, p path, request string, want int) error {
	dial := func(_ context.Context, network, address string) (c net.Conn, err error) {
		err = lab.InNetns(netns(p.client), func() (err error) {
			c, err = net.DialTimeout(network, address, 2*time.Second)
			return err
		})
		return c, err
	}
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	client := http.Client{Transport: transport, Timeout: 5 * time.Second}
	var last error
	for range 100 {
		resp, err := client.Get("http://" + p.addr + request)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if err == nil && resp.StatusCode == want {
				return nil
			}
			err = errors.Join(err, errors.New(resp.Status))
		}
		last = err
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s: GET %s does not answer %d: %w", p.name, request, want, last)
}

// result is what a load maker of bench/proxy tells; seconds of CPU within its span.
type result struct {
	Requests                                int64
	Seconds, Proxy, Load, Upstream, Machine float64
	P50, P99, P999                          time.Duration
}

func (r result) perCPU() float64 { return float64(r.Requests) / r.Proxy }

// core is how much of their core the proxies had.
func (r result) core() float64 { return r.Proxy / r.Seconds }

// each is what one request costs the whole machine, in µs of CPU.
func (r result) each() float64 { return 1e6 * r.Machine / float64(r.Requests) }

// rest is what neither proxies nor client nor server took of that: agents, control
// plane, and what the kernel does when nobody runs.
func (r result) rest() float64 {
	return 1e6 * (r.Machine - r.Proxy - r.Load - r.Upstream) / float64(r.Requests)
}

// load runs a load maker in the client's namespace.
func (b *bench) load(ctx context.Context, p path, args ...string) (result, error) {
	var watch string
	for _, pid := range p.proxies {
		watch += strconv.Itoa(pid) + " "
	}
	args = append([]string{"load", "-addr", p.addr, "-paths", "10", "-watch", watch, "-upstream", strconv.Itoa(p.upstream)}, args...)
	var r result
	out, err := b.inside(ctx, p.client, "bench-proxy", args...)
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err == nil && (r.Requests == 0 || len(p.proxies) > 0 && r.Proxy == 0) {
		err = fmt.Errorf("nothing happened: %+v", r)
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w", p.name, err)
	}
	return r, nil
}

// inside runs one of our programs in the namespace of a guest and returns what it prints.
func (b *bench) inside(ctx context.Context, guest, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, program), args...)
	return output(cmd, netns(guest))
}
