package stage

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"moire.dev/moire/snapshot/l7"
)

// joined writes a chain and its key into one file, as HAProxy wants them.
func joined(dir, name, chain, key string) (string, error) {
	a, err := os.ReadFile(chain)
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(key)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, append(a, b...), 0o600)
}

// haproxy writes what c says as a configuration of HAProxy with one thread.
func (s *Stage) haproxy(dir string, c *l7.Config) ([]string, error) {
	server, err := joined(dir, "server.pem", s.PKI.Chain, s.PKI.Key)
	if err != nil {
		return nil, err
	}
	caller, err := joined(dir, "caller.pem", s.PKI.ClientChain, s.PKI.ClientKey)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString("global\n nbthread 1\n maxconn 9500\n ssl-default-bind-options ssl-min-ver TLSv1.2\ndefaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n timeout http-request 10s\n timeout tunnel 60s\n http-reuse always\n")
	for i := range c.Listeners {
		l := &c.Listeners[i]
		fmt.Fprintf(&b, "frontend f%d\n bind %s", i, l.Address)
		if l.TLS != nil {
			alpn := map[l7.Protocol]string{l7.HTTP1: "http/1.1", l7.HTTP2: "h2"}[l.Protocol]
			if alpn == "" {
				alpn = "h2,http/1.1"
			}
			fmt.Fprintf(&b, " ssl crt %s alpn %s", server, alpn)
			if l.TLS.ClientCA != "" {
				fmt.Fprintf(&b, " ca-file %s verify required", s.PKI.CA)
			}
		} else if l.Protocol == l7.HTTP2 {
			b.WriteString(" proto h2")
		}
		if l.ProxyProtocol {
			b.WriteString(" accept-proxy")
		}
		b.WriteString("\n")
		if err := haproxyRoutes(&b, c, l, i); err != nil {
			return nil, err
		}
	}
	for i := range c.Clusters {
		k := &c.Clusters[i]
		fmt.Fprintf(&b, "backend c%d\n", i)
		for j, e := range k.Endpoints {
			fmt.Fprintf(&b, " server s%d %s", j, e.Address)
			if k.TLS != nil {
				fmt.Fprintf(&b, " ssl ca-file %s verify required crt %s sni str(%s) verifyhost %[3]s", s.PKI.CA, caller, k.TLS.ServerName)
				if k.Protocol == l7.HTTP2 {
					b.WriteString(" alpn h2")
				}
			} else if k.Protocol == l7.HTTP2 {
				b.WriteString(" proto h2")
			}
			b.WriteString("\n")
		}
	}
	path := filepath.Join(dir, "haproxy.cfg")
	return []string{"haproxy", "-db", "-f", path}, os.WriteFile(path, []byte(b.String()), 0o600)
}

func haproxyRoutes(b *strings.Builder, c *l7.Config, l *l7.Listener, frontend int) error {
	routes, err := routesOf(c, l)
	if err != nil {
		return err
	}
	for j, r := range routes {
		name := fmt.Sprintf("r%d_%d", frontend, j)
		condition := "{ var(txn.done) -m found }"
		match := fmt.Sprintf("{ path_reg ^%s(/|$) }", strings.TrimSuffix(r.prefix, "/"))
		if r.prefix == "/" {
			match = "TRUE"
		}
		if len(r.hosts) > 0 {
			match += fmt.Sprintf(" { req.hdr(host),host_only -i %s }", strings.Join(r.hosts, " "))
		}
		fmt.Fprintf(b, " http-request set-var(txn.%s) bool(true) if !%s %s\n http-request set-var(txn.done) bool(true) if %s\n", name, condition, match, match)
		chosen := fmt.Sprintf("{ var(txn.%s) -m found }", name)
		for _, h := range r.set {
			fmt.Fprintf(b, " http-request set-header %s %q if %s\n", h.Name, h.Value, chosen)
		}
		if r.to != nil {
			status := r.to.Status
			if status == 0 {
				status = 302
			}
			path := ""
			if r.to.Path != nil && r.to.Path.Full != nil {
				path = *r.to.Path.Full
			}
			fmt.Fprintf(b, " http-request redirect location http://%%[req.hdr(host)]%s code %d if %s\n", path, status, chosen)
			continue
		}
		i := slices.IndexFunc(c.Clusters, func(k l7.Cluster) bool { return k.Name == r.cluster })
		fmt.Fprintf(b, " use_backend c%d if %s\n", i, chosen)
	}
	return nil
}
