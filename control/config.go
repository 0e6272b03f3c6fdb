package control

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"moire.dev/moire/store"
)

// Defaults of Config.
const (
	DefaultDir             = "/var/lib/moire/control"
	DefaultRunDir          = "/run/moire"
	DefaultAPIListen       = store.DefaultListen
	DefaultDiscoveryListen = "127.0.0.1:7444"
)

// Config says where moired keeps its state and where it listens. The zero
// value is good for one machine.
type Config struct {
	// Dir is for state: keys, certificates, the embedded etcd. Default:
	// DefaultDir. Only one process can use it at a time.
	Dir string
	// APIListen is host:port of the API; port 0 picks a free one. Default:
	// DefaultAPIListen.
	APIListen string
	// DiscoveryListen is host:port for nodes; port 0 picks a free one.
	// Default: DefaultDiscoveryListen, which only nodes on this machine reach.
	DiscoveryListen string
	// AdvertiseAddresses are the addresses or names under which nodes and
	// users reach this machine. They go into certificates and join.json.
	// Default: the addresses that are listened on.
	AdvertiseAddresses []string
	// EtcdServers are URLs of an external etcd, with its CA and a client
	// certificate as PEM files. Default: an etcd inside this process.
	EtcdServers               []string
	EtcdCA, EtcdCert, EtcdKey string
	// DomainCAs is a directory with the CAs of Domains that have one of their own:
	// <Domain>/ca.crt, ca.key and, if ca.crt does not end in it, roots.crt.
	// Default: the control plane makes a CA for each Domain.
	DomainCAs string
	// Kubeconfig is where the administrator's kubeconfig is written. Default:
	// RunDir/kubeconfig.
	Kubeconfig string
	// RunDir is for kubeconfig and join.json. Default: DefaultRunDir.
	RunDir string
	// NameServers are host:port of who is asked for the external names of
	// Services. Default: those of /etc/resolv.conf.
	NameServers []string
	// FetchInside are prefixes of private addresses, such as 10.1.0.0/16, that may
	// be asked for the keys of JWT issuers. Default: none, because tenants say which.
	FetchInside []string
	// AwayAfter is how long a node may be without a stream before backends,
	// gateways and functions on it are left. Default: DefaultAwayAfter.
	AwayAfter time.Duration
	// IPFIX is the collector that gets every record, udp://host:port or
	// tcp://host:port. Default: nobody.
	IPFIX string
	// Metrics is host:port where Prometheus metrics are served, for everybody
	// who reaches it. Default: nowhere.
	Metrics string
	// Log. Default: slog.Default().
	Log *slog.Logger
}

// withDefaults fills the empty fields and checks the others.
func (c Config) withDefaults() (Config, error) {
	for _, d := range []struct {
		field *string
		value string
	}{{&c.Dir, DefaultDir}, {&c.RunDir, DefaultRunDir}, {&c.APIListen, DefaultAPIListen}, {&c.DiscoveryListen, DefaultDiscoveryListen}} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	for _, dir := range []*string{&c.Dir, &c.RunDir} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return c, fmt.Errorf("control: %q: %w", *dir, err)
		}
		*dir = abs
	}
	if c.Kubeconfig == "" {
		c.Kubeconfig = filepath.Join(c.RunDir, "kubeconfig")
	}
	for flag, listen := range map[string]string{"--api-listen": c.APIListen, "--discovery-listen": c.DiscoveryListen} {
		if _, _, err := net.SplitHostPort(listen); err != nil {
			return c, fmt.Errorf("control: %s %q is not host:port, such as 127.0.0.1:7443: %w", flag, listen, err)
		}
	}
	for _, a := range c.AdvertiseAddresses {
		if a == "" {
			return c, errors.New("control: an advertised address is empty; leave it out")
		}
		if host, _, err := net.SplitHostPort(a); err == nil && host != "" {
			return c, fmt.Errorf("control: --advertise %q has a port; write the address alone, the port is that of the listener", a)
		}
	}
	for _, s := range c.NameServers {
		if _, _, err := net.SplitHostPort(s); err != nil {
			return c, fmt.Errorf("control: --name-servers %q is not host:port, such as 192.0.2.53:53: %w", s, err)
		}
	}
	if _, err := c.fetchInside(); err != nil {
		return c, err
	}
	if c.AwayAfter == 0 {
		c.AwayAfter = DefaultAwayAfter
	}
	if c.AwayAfter < 0 {
		return c, fmt.Errorf("control: --away-after %s must be positive", c.AwayAfter)
	}
	if c.DomainCAs != "" {
		if _, err := os.ReadDir(c.DomainCAs); err != nil {
			return c, fmt.Errorf("control: --domain-cas: %w", err)
		}
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return c, nil
}

// fetchInside are the prefixes of FetchInside.
func (c Config) fetchInside() (out []netip.Prefix, err error) {
	for _, s := range c.FetchInside {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("control: --fetch-inside %q is not a prefix, such as 10.1.0.0/16: %w", s, err)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// identityDir holds the CA of the nodes and the tokens.
func identityDir(dir string) string { return filepath.Join(dir, "identity") }

// servers is host:port of discovery for every way to reach this machine.
func (c Config) servers(listening net.Addr) []string {
	_, port, err := net.SplitHostPort(listening.String())
	if err != nil {
		return []string{listening.String()}
	}
	if len(c.AdvertiseAddresses) > 0 {
		out := make([]string, len(c.AdvertiseAddresses))
		for i, a := range c.AdvertiseAddresses {
			out[i] = net.JoinHostPort(a, port)
		}
		return out
	}
	host := "127.0.0.1"
	if a, err := netip.ParseAddrPort(listening.String()); err == nil && !a.Addr().IsUnspecified() {
		host = a.Addr().String()
	}
	return []string{net.JoinHostPort(host, port)}
}

// names are what goes into serving certificates.
func (c Config) names() []string {
	out := append([]string(nil), c.AdvertiseAddresses...)
	for _, listen := range []string{c.APIListen, c.DiscoveryListen} {
		host, _, err := net.SplitHostPort(listen)
		if err != nil || host == "" {
			continue
		}
		if a, err := netip.ParseAddr(host); err == nil && a.IsUnspecified() {
			continue
		}
		out = append(out, host)
	}
	return out
}
