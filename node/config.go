package node

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"moire.dev/moire/datapath"
	"moire.dev/moire/node/proxies"
)

// Defaults.
const (
	DefaultRunDir   = "/run/moire"
	DefaultStateDir = "/var/lib/moire/node"
	DefaultWait     = 10 * time.Second
)

// Config says what the agent is. Empty fields have defaults.
type Config struct {
	// Name of the node. Default: the host name up to its first dot.
	Name string
	// Address of the node in the underlay. Default: the address of the
	// interface that has the default route.
	Address netip.Addr
	// Uplink is the interface towards the other nodes. Default: the one that
	// has Address.
	Uplink string
	// Dir is for state. Default: /var/lib/moire/node/<name>.
	Dir string
	// RunDir is for sockets and pins. Default: /run/moire.
	RunDir string
	// Servers, Token and CAHash join the node: host:port of discovery, a
	// token, and sha256:<hex> of the root certificate. Default: what
	// <run dir>/join.json says, as soon as it is there.
	Servers []string
	Token   string
	CAHash  string
	// ConntrackMax bounds the connections that the kernel side remembers. 0:
	// the default of datapath.
	ConntrackMax int
	// Wait bounds how long an attachment waits for the control plane.
	// Default: 10 s.
	Wait time.Duration
	// ResolvConf says what the node asks for names that no Network has.
	// Default: /etc/resolv.conf.
	ResolvConf string
	// EtcNetns is where `ip netns exec` looks for resolv.conf of a namespace.
	// Default: /etc/netns.
	EtcNetns string
	// Metrics is host:port where Prometheus metrics are served, for everybody
	// who reaches it. Default: nowhere.
	Metrics string
	// Proxy says how many proxies the node has. Default: one for all.
	Proxy proxies.Mode
	// ProxyProgram is the path of moire-proxy. Default: beside this program.
	ProxyProgram string
	// Version of the agent, for people.
	Version string
	// Log. Default: slog.Default().
	Log *slog.Logger
}

// name is a DNS label, or several with dots: what API objects are called.
var name = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)

// WithDefaults fills the empty fields.
func (c Config) WithDefaults() (Config, error) {
	c, err := c.named()
	if err != nil {
		return c, err
	}
	if c.Wait <= 0 {
		c.Wait = DefaultWait
	}
	if c.Proxy == "" {
		c.Proxy = proxies.Node
	}
	if !slices.Contains(proxies.Modes, c.Proxy) {
		return c, fmt.Errorf("there is no way %q to have proxies; write one of %q", c.Proxy, proxies.Modes)
	}
	if c.ProxyProgram == "" {
		self, err := os.Executable()
		if err != nil {
			return c, fmt.Errorf("where this program is: %w; say where moire-proxy is", err)
		}
		c.ProxyProgram = filepath.Join(filepath.Dir(self), "moire-proxy")
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if !c.Address.IsValid() {
		if c.Address, err = defaultAddress("/proc/net"); err != nil {
			return c, err
		}
	}
	if given := c.Token != "" || c.CAHash != "" || len(c.Servers) > 0; given && len(c.Servers) == 0 {
		return c, errors.New("to join, the node needs to know where the control plane is; pass --server host:7444")
	}
	return c, nil
}

// named fills the name and the directories.
func (c Config) named() (Config, error) {
	if c.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return c, fmt.Errorf("this machine has no host name: %w; set one or pass --name", err)
		}
		c.Name, _, _ = strings.Cut(strings.ToLower(host), ".")
	}
	if !name.MatchString(c.Name) {
		return c, fmt.Errorf("%q cannot be the name of a node: only small letters, digits and dashes; pass --name", c.Name)
	}
	if c.EtcNetns == "" {
		c.EtcNetns = "/etc/netns"
	}
	if c.RunDir == "" {
		c.RunDir = DefaultRunDir
	}
	if c.Dir == "" {
		c.Dir = filepath.Join(DefaultStateDir, c.Name)
	}
	return c, nil
}

func (c *Config) socket() string { return filepath.Join(c.RunDir, c.Name+".sock") }

// workloadSocket is where applications get their identities. Its directory holds
// nothing else, so that it can be shown to containers.
func (c *Config) workloadSocket() string { return filepath.Join(c.RunDir, "workload", c.Name+".sock") }

func (c *Config) workloadAPI() string { return "unix://" + c.workloadSocket() }

// joinPath is where a control plane on this machine invites its node.
func (c *Config) joinPath() string { return filepath.Join(c.RunDir, "join.json") }

// toldPath is what Workloads were told by name.
func (c *Config) toldPath() string { return filepath.Join(c.RunDir, c.Name+".told") }

// proxyDir is where the sockets of the node's proxies are.
func (c *Config) proxyDir() string { return filepath.Join(c.RunDir, c.Name+".proxies") }

// proxyCgroup is the cgroup of the node's proxies, each of which has its own below.
// Several nodes of one name may share a machine, but no run directory.
func (c *Config) proxyCgroup() (string, error) {
	root, err := datapath.CgroupRoot()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(c.RunDir))
	return filepath.Join(root, "moire", c.Name+"."+hex.EncodeToString(sum[:4])), nil
}

// gatewayDir is where the namespaces of the node's Gateways are shown, and nothing
// else.
func (c *Config) gatewayDir() string { return filepath.Join(c.RunDir, c.Name+".gateways") }

// gatewayFile is where that of one is.
func (c *Config) gatewayFile(project, workload string) string {
	return filepath.Join(c.gatewayDir(), project+"."+workload)
}

// netnsFile is where `moire run` shows the namespace of a Workload.
func (c *Config) netnsFile(project, workload string) string {
	return filepath.Join(c.RunDir, "netns", project+"."+workload)
}
