package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"moire.dev/moire/examples"
	"moire.dev/moire/lab"
)

// Config of a Demo.
type Config struct {
	// Exe is the moire binary; moired and moire-node are beside it.
	Exe string
	// Out gets the tour, Progress what is being done.
	Out, Progress io.Writer
}

// Demo is one run of the demo.
type Demo struct {
	Config
	lab  *lab.Lab
	apps []*lab.Process
}

// tenants of the demo; each has a file in examples/demo.
var tenants = []string{"acme", "globex"}

// app is one process of a tenant.
type app struct {
	project, network, name, node string
	serve                        []string // arguments of `moire demo serve`
}

var apps = []app{
	{"shop", "front", "db", "n2", []string{"--say", "db of %s"}},
	{"shop", "front", "web", "n1", []string{"--say", "web of %s", "--ask", "http://10.0.0.12:8080/", "--ask", "http://[fd00:77::12]:8080/"}},
	{"shop", "front", "batch", "n1", []string{"--say", "batch of %s"}},
	{"shop", "front", "blue", "n1", []string{"--say", "blue page of %s"}},
	{"shop", "front", "green", "n2", []string{"--say", "green page of %s"}},
	{"shop", "front", "catalog-v1", "n2", []string{"--say", "catalog v1 of %s"}},
	{"shop", "front", "catalog-v1b", "n2", []string{"--say", "catalog v1 of %s"}},
	{"shop", "front", "catalog-v2", "n1", []string{"--say", "catalog v2 of %s"}},
	{"shop", "front", "catalog-slow", "n1", []string{"--say", "catalog v1 of %s, slowly", "--delay", "300ms"}},
	{"data", "back", "ledger", "n2", []string{"--say", "ledger of %s"}},
}

// New starts nothing.
func New(c Config) (*Demo, error) {
	d := &Demo{Config: c}
	var err error
	d.lab, err = lab.New(lab.Config{Bin: filepath.Dir(c.Exe), Progress: d.progress})
	return d, err
}

func (d *Demo) progress(s string) { fmt.Fprintf(d.Progress, "- %s\n", s) }

// Down ends a demo that runs, whoever started it, and removes every trace, also
// of one that was killed.
func (d *Demo) Down(ctx context.Context) error {
	if err := d.lab.EndHolder(ctx); err != nil {
		return err
	}
	if !d.lab.Left() {
		d.progress("nothing of a demo is left")
		return d.lab.Forget()
	}
	d.progress("removing what a demo left that was killed")
	return d.lab.Down(ctx)
}

// Run makes the demo, shows it and stays until ctx ends; then it removes
// every trace.
func (d *Demo) Run(ctx context.Context) (err error) {
	began := time.Now()
	release, err := d.vacant(ctx)
	if err != nil {
		return err
	}
	defer release()
	defer func() {
		d.progress("removing the demo")
		d.stopApps()
		// ctx may have ended; cleaning up has its own bound.
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if e := d.lab.Down(bounded); err == nil {
			err = e
		}
	}()
	if err := d.lab.Up(ctx); err != nil {
		return d.ended(ctx, err)
	}
	if err := d.apply(ctx); err != nil {
		return d.ended(ctx, err)
	}
	for _, tenant := range tenants {
		for _, a := range apps {
			if err := d.start(tenant, a); err != nil {
				return d.ended(ctx, err)
			}
		}
	}
	if err := d.await(ctx); err != nil {
		return d.ended(ctx, err)
	}
	d.progress(fmt.Sprintf("ready after %.1f seconds", time.Since(began).Seconds()))
	d.prove(ctx)
	fmt.Fprint(d.Out, tour)
	<-ctx.Done()
	return nil
}

// ended hides the error of a demo that was ended on purpose.
func (d *Demo) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// vacant takes the place of the demo, or says clearly who has it. What a demo
// left that was killed is removed: nobody needs it.
func (d *Demo) vacant(ctx context.Context) (release func(), err error) {
	release, err = d.lab.Hold()
	if errors.Is(err, lab.ErrHeld) {
		return nil, fmt.Errorf("a demo is there: %w; use that one, or end it with 'moire demo down'", err)
	}
	if err != nil {
		return nil, err
	}
	if d.lab.Left() {
		d.progress("removing what a demo left that was killed")
		if err := d.lab.Down(ctx); err != nil {
			release()
			return nil, err
		}
		release()
		if release, err = d.lab.Hold(); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("tcp", d.lab.APIListen)
	if err != nil {
		release()
		err = errors.Join(err, d.lab.Forget())
		return nil, fmt.Errorf("the demo's API server cannot listen: %w; end what listens there; a 'moire up' ends with Ctrl-C or 'moire down'", err)
	}
	return release, l.Close()
}

func (d *Demo) apply(ctx context.Context) error {
	for _, tenant := range tenants {
		d.progress("declaring tenant " + tenant)
		for _, part := range []string{"", "-mesh"} {
			intent, err := examples.Demo.ReadFile("demo/" + tenant + part + ".yaml")
			if err != nil {
				return err
			}
			cmd := d.command(ctx, "apply", "-f", "-")
			cmd.Stdin = bytes.NewReader(intent)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("moire apply: %w: %s", err, out)
			}
		}
	}
	return nil
}

func (d *Demo) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, d.Exe, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+d.lab.Kubeconfig())
	return cmd
}

// start runs one process of the shop as a Workload.
func (d *Demo) start(tenant string, a app) error {
	d.progress(fmt.Sprintf("starting %s of %s on node %s", a.name, tenant, a.node))
	args := []string{"run", "--node", a.node, "--project", tenant + "-" + a.project, "--network", a.network,
		"--name", a.name, "--", d.Exe, "demo", "serve", "--listen", "[::]:8080"}
	for _, s := range a.serve {
		args = append(args, strings.ReplaceAll(s, "%s", tenant))
	}
	p, err := d.lab.Start(tenant+"-"+a.name, "", d.Exe, args...)
	if err != nil {
		return err
	}
	d.apps = append(d.apps, p)
	return nil
}

func (d *Demo) stopApps() {
	for _, p := range d.apps {
		p.Stop(5 * time.Second)
	}
}

// await waits until every process answers inside its own namespace.
func (d *Demo) await(ctx context.Context) error {
	d.progress("waiting until every process answers")
	for _, tenant := range tenants {
		for _, a := range apps {
			var err error
			for range 100 {
				if _, err = d.ask(ctx, tenant, a.project, a.name, "http://127.0.0.1:8080/"); err == nil || ctx.Err() != nil {
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
			if err != nil {
				log, _ := os.ReadFile(filepath.Join(d.lab.Dir, tenant+"-"+a.name+".log"))
				return fmt.Errorf("%s of %s does not answer: %w\n%s", a.name, tenant, err, log)
			}
		}
	}
	return nil
}

// ask fetches the URL from inside the namespace of the tenant's process.
func (d *Demo) ask(ctx context.Context, tenant, project, name, url string) (string, error) {
	netns := filepath.Join(d.lab.RunDir, "netns", tenant+"-"+project+"."+name)
	cmd := exec.CommandContext(ctx, d.Exe, "demo", "fetch", "--limit", "2s", url)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := lab.InNetns(netns, cmd.Start); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%s", strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// question is one request that the demo shows.
type question struct{ project, from, url, what string }

// questions of each tenant: one allowed and one denied flow in IPv4 and IPv6,
// then a Service, a Link and a FloatingIP, then requests.
var questions = []question{
	{"shop", "web", "http://10.0.0.12:8080/", ""},
	{"shop", "web", "http://[fd00:77::12]:8080/", ""},
	{"shop", "batch", "http://10.0.0.12:8080/", ""},
	{"shop", "batch", "http://[fd00:77::12]:8080/", ""},
	{"shop", "web", "http://10.0.0.20/", "a Service in front of blue and green"},
	{"shop", "web", "http://10.1.0.11:8080/", "over a Link into another Network"},
	{"data", "ledger", "http://10.1.0.100:8080/", "a floating address, now of blue"},
	{"shop", "web", "http://10.0.0.30/", "a route to two versions"},
	{"shop", "web", "http://10.0.0.30/admin", "the same, and a path that a rule denies"},
}

// prove shows them.
func (d *Demo) prove(ctx context.Context) {
	fmt.Fprintln(d.Out, "\nTwo tenants, the same addresses, the same two nodes. Each line below is a real HTTP request:")
	for _, tenant := range tenants {
		fmt.Fprintf(d.Out, "\n  tenant %s\n", tenant)
		for _, q := range questions {
			got, err := d.ask(ctx, tenant, q.project, q.from, q.url)
			if err != nil {
				got = "DENIED  " + strings.TrimPrefix(err.Error(), "error: ")
			} else {
				got = "ALLOWED " + got
			}
			if q.what != "" {
				got += "  <- " + q.what
			}
			fmt.Fprintf(d.Out, "    %-6s -> %-26s %s\n", q.from, q.url, got)
		}
	}
}

const tour = `
Try, in another terminal, as root:

  bin/moire get workloads -A
  bin/moire status

Who may talk to whom, and why:
  bin/moire explain --from acme-shop/batch --to acme-shop/db --port 8080
  bin/moire explain --from globex-shop/batch --to globex-shop/db --port 8080
  bin/moire flows --verdict deny
  bin/moire get policy db -n acme-shop -o yaml
  bin/moire analyze -f examples/demo

Names, a Link into another Network, and one address for two versions of a page:
  bin/moire exec acme-shop/web -- bin/moire demo fetch http://db:8080/
  bin/moire exec acme-shop/web -- bin/moire demo fetch http://ledger.acme-data:8080/
  bin/moire exec acme-shop/web -- bin/moire demo fetch http://page/
  bin/moire explain --from acme-shop/web --to acme-shop/page --port 80

Requests: one of ten goes to v2, and who asks for v2 gets it; a path is denied; the slow one is left out after some seconds:
  bin/moire exec acme-shop/web -- bin/moire demo fetch --times 100 http://catalog/
  bin/moire exec acme-shop/web -- bin/moire demo fetch --times 5 --header 'x-version: v2' http://catalog/
  bin/moire exec acme-shop/web -- bin/moire demo fetch http://catalog/admin || true
  bin/moire explain --from acme-shop/web --to acme-shop/catalog --port 80 --request 'GET /admin' || true
  bin/moire flows --kind request --limit 5
  bin/moire get httproutes,backendpolicies -n acme-shop

A floating address moves from blue to green, and back:
  bin/moire exec acme-data/ledger -- bin/moire demo fetch http://public.acme-shop:8080/
  bin/moire apply -f examples/demo-swap/acme-green.yaml
  bin/moire exec acme-data/ledger -- bin/moire demo fetch http://public.acme-shop:8080/
  bin/moire apply -f examples/demo-swap/acme-blue.yaml

The way of a packet that is denied, as it should be and as it is; and the packet:
  bin/moire trace --from acme-shop/batch --to acme-shop/db --port 8080 --live
  (sleep 2; bin/moire exec acme-shop/batch -- bin/moire demo fetch --limit 1s http://db:8080/ || true) & bin/moire capture acme-shop/batch --verdict deny --for 5s

Processes of your own:
  bin/moire run --node n1 --project acme-shop --network front --label app=web -- bin/moire demo fetch http://10.0.0.12:8080/
  bin/moire run --node n1 --project acme-shop --network front --label app=batch -- bin/moire demo fetch 'http://[fd00:77::12]:8080/'
  kubectl --kubeconfig /run/moire/kubeconfig get networks -A

The intent is in examples/demo; change it and 'bin/moire apply -f examples/demo'.
Ctrl-C ends the demo and removes every trace; 'bin/moire demo down' does so after a crash.
`
