package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"moire.dev/moire/lab"
	"moire.dev/moire/node/local"
)

const (
	labName = "moire-m"
	guests  = labName + "-w-"

	// tenants
	plain = "mesh-plain" // not in the mesh
	mesh  = "mesh-strict"

	// where the server is, the client being on n1
	near = "near" // on the same node
	far  = "far"  // on the other one

	upstreamPort = "20900"
)

var (
	//go:embed intent.yaml
	tenantIntent string
	//go:embed plain.yaml
	plainIntent string
	//go:embed meshed.yaml
	meshedIntent string

	// services of the tenant in the mesh.
	services = map[string]string{near: "10.1.0.201", far: "10.1.0.202"}
	nodes    = map[string]string{"client": "n1", near: "n1", far: "n2"}
)

// world is the lab and who is in it.
type world struct {
	*lab.Lab
	scratch   string                   // certificates and configurations of Envoys
	addresses map[string]string        // of guests that are attached
	upstreams map[string]int           // processes, by guest
	envoys    map[string]*lab.Process  // by name
	clients   map[string]*local.Client // agents, by node
}

// guest is the name of a namespace: raw/client, mesh-strict/far, …
func guest(tenant, name string) string { return tenant + "-" + name }

func netns(guest string) string { return "/run/netns/" + guests + guest }

// newWorld starts nothing.
func newWorld(bin string) (*world, error) {
	l, err := lab.New(lab.Config{
		Name: labName, Bin: bin, Direct: true, Underlay: netip.MustParsePrefix("198.18.74.0/24"), RunDir: "/run/moire-mesh", APIListen: "127.0.0.1:17444",
		Progress: func(s string) { fmt.Fprintln(os.Stderr, "-", s) },
	})
	if err != nil {
		return nil, err
	}
	w := &world{Lab: l, scratch: filepath.Join("/run", labName), addresses: map[string]string{}, upstreams: map[string]int{}, envoys: map[string]*lab.Process{}, clients: map[string]*local.Client{}}
	for _, n := range l.Nodes {
		w.clients[n.Name] = local.NewClient(filepath.Join(l.RunDir, n.Name+".sock"))
	}
	return w, nil
}

// up makes the lab, two pairs of namespaces without proxies (a raw veth pair, and
// a tenant that is not in the mesh), and declares the tenant that is.
func (w *world) up(ctx context.Context) error {
	if err := w.Up(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(w.scratch, 0o700); err != nil {
		return err
	}
	if err := sh(strings.NewReplacer("C", guests+guest("raw", "client"), "S", guests+guest("raw", near)).Replace(`
for n in C S; do ip netns add $n; ip -n $n link set lo up; done
ip -n C link add e0 type veth peer name e0 netns S
ip -n C addr add 10.1.0.1/24 dev e0; ip -n S addr add 10.1.0.2/24 dev e0
ip -n C link set e0 up; ip -n S link set e0 up`)); err != nil {
		return err
	}
	w.addresses[guest("raw", near)] = "10.1.0.2"
	if err := w.serve(guest("raw", near)); err != nil {
		return err
	}
	for tenant, more := range map[string]struct{ mode, intent string }{plain: {"off", plainIntent}, mesh: {"strict", meshedIntent}} {
		if err := w.apply(ctx, strings.NewReplacer("DOMAIN", tenant, "MODE", more.mode).Replace(tenantIntent+"---\n"+more.intent)); err != nil {
			return err
		}
	}
	for name := range nodes {
		for _, tenant := range []string{plain, mesh} {
			ns := guests + guest(tenant, name)
			if err := sh("ip netns add " + ns + "; ip -n " + ns + " link set lo up"); err != nil {
				return err
			}
			if name != "client" {
				if err := w.serve(guest(tenant, name)); err != nil {
					return err
				}
			}
		}
	}
	return w.attach(ctx, plain)
}

// down removes every trace, also of a run that was killed.
func (w *world) down(ctx context.Context) error {
	errs := []error{w.Lab.Down(ctx)}
	left, err := filepath.Glob(netns("*"))
	errs = append(errs, err)
	for _, n := range left {
		errs = append(errs, sh("ip netns del "+filepath.Base(n)))
	}
	return errors.Join(append(errs, os.RemoveAll(w.scratch))...)
}

// serve starts the upstream in a namespace.
func (w *world) serve(guest string) error {
	p, err := w.Start("upstream-"+guest, netns(guest), filepath.Join(w.Bin, "bench-proxy"), "serve", "0.0.0.0")
	if err == nil {
		w.upstreams[guest] = p.Pid()
	}
	return err
}

// attach makes client and servers of a tenant Workloads.
func (w *world) attach(ctx context.Context, tenant string) error {
	for _, name := range []string{near, far, "client"} {
		role := map[bool]string{true: "client", false: "server"}[name == "client"]
		out, err := w.moire(ctx, "", "attach", "--run-dir", w.RunDir, "--node", nodes[name], "--netns", guests+guest(tenant, name),
			"--project", tenant, "--network", "net", "--name", name, "--label", "role="+role, "--label", "at="+name, "-o", "json")
		if err != nil {
			return err
		}
		var answer struct {
			Interfaces []struct{ Addresses []string }
		}
		if err := json.Unmarshal(out, &answer); err != nil || len(answer.Interfaces) == 0 || len(answer.Interfaces[0].Addresses) == 0 {
			return fmt.Errorf("attach answered %q (%w)", out, err)
		}
		w.addresses[guest(tenant, name)] = answer.Interfaces[0].Addresses[0]
	}
	return nil
}

func (w *world) detach(ctx context.Context, tenant string) error {
	for name, node := range nodes {
		if _, err := w.moire(ctx, "", "detach", "--run-dir", w.RunDir, "--node", node, tenant+"/"+name); err != nil {
			return err
		}
		delete(w.addresses, guest(tenant, name))
	}
	return nil
}

func (w *world) apply(ctx context.Context, intent string) error {
	_, err := w.moire(ctx, intent, "apply", "-f", "-")
	return err
}

// moire runs the command line and returns what it prints.
func (w *world) moire(ctx context.Context, in string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(w.Bin, "moire"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+w.Kubeconfig())
	cmd.Stdin = strings.NewReader(in)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("moire %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return out, nil
}

// sh runs lines of ip commands.
func sh(lines string) error {
	if out, err := exec.Command("sh", "-ec", lines).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
