package main

import (
	"context"
	"embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"
)

//go:embed peers
var peerFiles embed.FS

// kind of proxy: how it is started with the configuration that its template makes.
type kind struct {
	template string
	command  func(file string) []string
}

// kinds by name. In an argument {name} is its binary.
var kinds = map[string]kind{
	"moire":   {"moire.yaml", func(f string) []string { return []string{"--config", f, "--log-level", "warn"} }},
	"nginx":   {"nginx.conf", func(f string) []string { return []string{"-c", f, "-e", "stderr"} }},
	"haproxy": {"haproxy.cfg", func(f string) []string { return []string{"-db", "-f", f} }},
	"envoy": {"envoy.yaml", func(f string) []string {
		return []string{"-c", f, "--concurrency", "1", "--disable-hot-restart", "-l", "error"}
	}},
	"caddy": {"Caddyfile", func(f string) []string { return []string{"run", "--config", f, "--adapter", "caddyfile"} }},
}

// executable finds a proxy: an environment variable (MOIRE_PROXY, NGINX, …), what
// bench/proxy/run has installed into bin, or the path.
func executable(name string) (string, error) {
	name, path, other := strings.Cut(name, "@")
	if other {
		return filepath.Abs(path)
	}
	if path := os.Getenv(map[bool]string{true: "MOIRE_PROXY", false: strings.ToUpper(name)}[name == "moire"]); path != "" {
		return path, nil
	}
	for _, path := range []string{"bin/peers/envoy/_bin/" + name, "bin/peers/" + name + "-server", "bin/" + name + "-proxy"} {
		if _, err := os.Stat(path); err == nil {
			return filepath.Abs(path)
		}
	}
	return exec.LookPath(name)
}

// ports of one proxy that is running.
type ports struct {
	HTTP1  int // HTTP/1.1 to HTTP/1.1
	HTTP2  int // HTTP/2 to HTTP/1.1
	Both2  int // HTTP/2 to HTTP/2
	GRPC   int // HTTP/2 to HTTP/2, gRPC
	TLS    int // HTTP/1.1 or HTTP/2 by ALPN over TLS, to HTTP/1.1
	MTLS   int // the same, callers must have a certificate
	Shake  int // as MTLS, but answers with a redirect itself
	TCP    int // bytes
	Mesh   int // HTTP/1.1 to HTTP/1.1 over mutual TLS 1.3, to another proxy's MTLS
	Even   int // HTTP/1.1 to three endpoints, round robin
	Clever int // the same, with the best balancer that it has
}

func portsFrom(base int) ports {
	return ports{base, base + 1, base + 2, base + 3, base + 4, base + 5, base + 6, base + 7, base + 8, base + 9, base + 10}
}

func (p ports) listens() []int {
	return []int{p.HTTP1, p.HTTP2, p.Both2, p.GRPC, p.TLS, p.MTLS, p.Shake, p.TCP, p.Mesh, p.Even, p.Clever}
}

// variant is what one proxy must do: everything off is its zero value.
type variant struct {
	name string
	// Hosts times Paths routes; 0: everything goes to one cluster.
	Hosts, Paths int
	Metrics      bool
	// Records: an access log, or of moire its request records, in memory or,
	// with RecordsFile, written to a file.
	Records, RecordsFile bool
	// AccessLog of moire, beside its records.
	AccessLog bool
	// Sample is the share of requests that moire makes spans of.
	Sample float64
}

// Both sides of the comparison.
var (
	everything = variant{name: "on", Hosts: 10, Paths: 10, Metrics: true, Records: true, RecordsFile: true}
	nothing    = variant{name: "off"}
)

// setup is what a template sees.
type setup struct {
	variant
	Dir, Certs, CA string
	Port           ports
	// MeshTo is the MTLS port that Mesh goes to.
	MeshTo                       int
	UpHTTP1, UpHTTP2, UpGRPC     int
	UpFast1, UpFast2, UpSlow     int
	AnyRoutes                    bool
	EachHost, EachPath, Clusters []int
	// FewHosts have routes on listeners other than HTTP1 and what shares its table.
	FewHosts    []int
	MutualPorts map[string]int
}

// instance is a proxy that runs.
type instance struct {
	*process
	name  string
	port  ports
	of    variant
	pids  []int
	certs string
	up    int
}

// bench is the world that all is measured in.
type bench struct {
	dir      string // scratch
	certs    string
	upstream *process
	proxies  []string
	rounds   int
	warm     time.Duration
	span     time.Duration
	quick    bool
	work     string // that the name of a line of speed has to hold
	next     int    // base of the next instance's ports
	failures int
}

// launch starts a proxy. mesh is the port that its mesh hop goes to; 0: its own.
func (b *bench) launch(ctx context.Context, name string, v variant, mesh int) (*instance, error) {
	kindName, _, _ := strings.Cut(name, "@")
	k, ok := kinds[kindName]
	if !ok {
		return nil, fmt.Errorf("no proxy %q: moire, nginx, haproxy, envoy, caddy", name)
	}
	bin, err := executable(name)
	if err != nil {
		return nil, err
	}
	in := &instance{name: name, of: v, port: b.freePorts(), certs: b.certs, up: b.upstream.cmd.Process.Pid}
	dir := filepath.Join(b.dir, fmt.Sprintf("%s-%s-%d", kindName, v.name, in.port.HTTP1))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if mesh == 0 {
		mesh = in.port.MTLS
	}
	file := filepath.Join(dir, k.template)
	if err := b.render(file, k.template, v, in.port, mesh); err != nil {
		return nil, err
	}
	if in.process, err = start(ctx, coreProxy, dir, name, append([]string{bin}, k.command(file)...)...); err != nil {
		return nil, err
	}
	if err := in.listening(ctx, in.port.listens()...); err != nil {
		in.stop()
		return nil, err
	}
	// It may listen before the process that answers is there.
	if err := in.answering(ctx); err != nil {
		in.stop()
		return nil, err
	}
	in.pids = family(in.cmd.Process.Pid)
	return in, nil
}

// freePorts are ports that nobody listens on, below those that the kernel gives
// to callers. Some proxies would share them with others without a word.
func (b *bench) freePorts() ports {
	for {
		p := portsFrom(b.next)
		if b.next += 20; b.next > 32000 {
			b.next = firstPort
		}
		if !slices.ContainsFunc(p.listens(), taken) {
			return p
		}
	}
}

func taken(port int) bool {
	l, err := net.Listen("tcp", address(port))
	if err == nil {
		l.Close()
	}
	return err != nil
}

func (b *bench) render(file, name string, v variant, p ports, mesh int) error {
	ca, err := os.ReadFile(filepath.Join(b.certs, caFile))
	if err != nil {
		return err
	}
	s := setup{variant: v, Dir: filepath.Dir(file), Certs: b.certs, CA: string(ca), Port: p, MeshTo: mesh,
		UpHTTP1: upstreamHTTP1, UpHTTP2: upstreamHTTP2, UpGRPC: upstreamGRPC,
		UpFast1: upstreamFast1, UpFast2: upstreamFast2, UpSlow: upstreamSlow,
		AnyRoutes: v.Hosts > 0, EachHost: upTo(v.Hosts), FewHosts: upTo(min(10, v.Hosts)), EachPath: upTo(v.Paths), Clusters: upTo(1),
		MutualPorts: map[string]int{"mtls": p.MTLS, "shake": p.Shake}}
	if s.AnyRoutes {
		s.Clusters = upTo(10)
	}
	t, err := template.New(name).Funcs(template.FuncMap{
		"mod": func(a, n int) int { return a % n },
		"indent": func(n int, s string) string {
			return strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n"+strings.Repeat(" ", n))
		},
		"list": func(all ...any) []any { return all },
	}).ParseFS(peerFiles, "peers/*")
	if err != nil {
		return err
	}
	// A template may write files beside its own.
	for _, each := range []string{name, name + ".routes"} {
		if t.Lookup(each) == nil {
			continue
		}
		out, err := os.Create(filepath.Join(filepath.Dir(file), each))
		if err != nil {
			return err
		}
		defer out.Close()
		if err := t.ExecuteTemplate(out, each, s); err != nil {
			return err
		}
	}
	return nil
}

func upTo(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}
