package stage

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"moire.dev/moire/snapshot/l7"
)

// served is a rule of a Route as a peer is told it: one prefix of one host.
type served struct {
	hosts   []string
	prefix  string
	set     []l7.Header
	to      *l7.Redirect
	cluster string
}

// routesOf are the rules of the routes on a listener, longer prefixes first.
func routesOf(c *l7.Config, l *l7.Listener) ([]served, error) {
	var all []served
	for _, r := range c.Routes {
		if len(r.Listeners) > 0 && !slices.Contains(r.Listeners, l.Name) {
			continue
		}
		for _, rule := range r.Rules {
			s := served{hosts: r.Hostnames, prefix: "/"}
			for _, m := range rule.Matches {
				if m.Path == nil || m.Path.Kind != l7.Prefix || m.Method != "" || len(m.Headers)+len(m.Query) > 0 || len(rule.Matches) > 1 {
					return nil, fmt.Errorf("route %s: peers are told one path prefix, no other match", r.Name)
				}
				s.prefix = m.Path.Value
			}
			for _, f := range rule.Filters {
				switch {
				case f.RequestHeaders != nil:
					s.set = append(s.set, f.RequestHeaders.Set...)
				case f.Redirect != nil:
					s.to = f.Redirect
				}
			}
			if s.to == nil && len(rule.Backends) != 1 {
				return nil, fmt.Errorf("route %s: peers are told one backend", r.Name)
			}
			if len(rule.Backends) == 1 {
				s.cluster = rule.Backends[0].Cluster
			}
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(a, b served) int { return len(b.prefix) - len(a.prefix) })
	return all, nil
}

// nginx writes what c says as a configuration of nginx with one process.
func (s *Stage) nginx(dir string, c *l7.Config) ([]string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "daemon off; master_process off; worker_rlimit_nofile 19000; pid %[1]s/pid; error_log %[1]s/error.log;\nevents { worker_connections 18000; }\nhttp {\n access_log off; client_max_body_size 0; proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off;\n client_header_timeout 10s; client_body_timeout 10s; send_timeout 10s;\n", dir)
	for _, t := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&b, " %s_temp_path %s/%s;\n", t, dir, t)
	}
	b.WriteString(" map $http_upgrade $hop { default upgrade; '' ''; }\n")
	for i := range c.Clusters {
		fmt.Fprintf(&b, " upstream c%d {", i)
		for _, e := range c.Clusters[i].Endpoints {
			fmt.Fprintf(&b, " server %s;", e.Address)
		}
		b.WriteString(" keepalive 64; }\n")
	}
	for i := range c.Listeners {
		if err := s.nginxServer(&b, c, &c.Listeners[i]); err != nil {
			return nil, err
		}
	}
	b.WriteString("}\n")
	path := filepath.Join(dir, "nginx.conf")
	return []string{"nginx", "-p", dir, "-c", path, "-e", dir + "/early.log"}, os.WriteFile(path, []byte(b.String()), 0o600)
}

func (s *Stage) nginxServer(b *strings.Builder, c *l7.Config, l *l7.Listener) error {
	routes, err := routesOf(c, l)
	if err != nil {
		return err
	}
	var hosts []string
	for _, r := range routes {
		name := strings.Join(r.hosts, " ")
		if name == "" {
			name = "_"
		}
		if !slices.Contains(hosts, name) {
			hosts = append(hosts, name)
		}
	}
	for _, host := range hosts {
		fmt.Fprintf(b, " server { listen %s", l.Address)
		if l.TLS != nil {
			b.WriteString(" ssl")
		}
		if l.Protocol == l7.HTTP2 || l.TLS != nil && l.Protocol != l7.HTTP1 {
			b.WriteString(" http2")
		}
		if l.ProxyProtocol {
			b.WriteString(" proxy_protocol")
		}
		fmt.Fprintf(b, "; server_name %s;\n", host)
		if l.TLS != nil {
			fmt.Fprintf(b, "  ssl_certificate %s; ssl_certificate_key %s; ssl_protocols TLSv1.2 TLSv1.3;\n", s.PKI.Chain, s.PKI.Key)
			if l.TLS.ClientCA != "" {
				fmt.Fprintf(b, "  ssl_client_certificate %s; ssl_verify_client on; error_page 495 496 =421 /;\n", s.PKI.CA)
			}
		}
		for _, r := range routes {
			if name := strings.Join(r.hosts, " "); name == host || name == "" && host == "_" {
				s.nginxLocation(b, c, r)
			}
		}
		b.WriteString(" }\n")
	}
	return nil
}

// nginxLocation writes a prefix by path element, which nginx has as two.
func (s *Stage) nginxLocation(b *strings.Builder, c *l7.Config, r served) {
	if r.prefix == "/" {
		s.nginxPlace(b, c, r, "/")
		return
	}
	s.nginxPlace(b, c, r, "= "+r.prefix)
	s.nginxPlace(b, c, r, r.prefix+"/")
}

func (s *Stage) nginxPlace(b *strings.Builder, c *l7.Config, r served, place string) {
	fmt.Fprintf(b, "  location %s {", place)
	defer b.WriteString(" }\n")
	if r.to != nil {
		status := r.to.Status
		if status == 0 {
			status = 302
		}
		path := ""
		if r.to.Path != nil && r.to.Path.Full != nil {
			path = *r.to.Path.Full
		}
		fmt.Fprintf(b, " return %d $scheme://$http_host%s;", status, path)
		return
	}
	i := slices.IndexFunc(c.Clusters, func(k l7.Cluster) bool { return k.Name == r.cluster })
	k := &c.Clusters[i]
	kind, scheme := "proxy", "http"
	if k.TLS != nil {
		scheme = "https"
	}
	if k.Protocol == l7.HTTP2 {
		kind, scheme = "grpc", map[bool]string{false: "grpc", true: "grpcs"}[k.TLS != nil]
	}
	fmt.Fprintf(b, " %s_pass %s://c%d; %[1]s_set_header Host $http_host;", kind, scheme, i)
	if kind == "proxy" {
		b.WriteString(" proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $hop;")
	}
	if k.TLS != nil {
		fmt.Fprintf(b, " %[1]s_ssl_certificate %[2]s; %[1]s_ssl_certificate_key %[3]s; %[1]s_ssl_trusted_certificate %[4]s; %[1]s_ssl_verify on; %[1]s_ssl_name %[5]s; %[1]s_ssl_server_name on;",
			kind, s.PKI.ClientChain, s.PKI.ClientKey, s.PKI.CA, k.TLS.ServerName)
	}
	for _, h := range r.set {
		fmt.Fprintf(b, " %s_set_header %s %q;", kind, h.Name, h.Value)
	}
}
