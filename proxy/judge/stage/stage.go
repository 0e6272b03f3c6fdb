package stage

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"moire.dev/moire/snapshot/l7"
)

// Stage is where one run of the judges happens: a directory, its certificates
// and what was started on it.
type Stage struct {
	// Dir holds all files of this run.
	Dir string
	// Tools is the directory that proxy/judge/install filled.
	Tools string
	// Moire is the path of the moire-proxy binary.
	Moire string
	PKI   PKI

	mu      sync.Mutex
	port    int
	count   int
	running []*Process
}

// New makes a stage under dir, which must exist.
func New(dir, tools, moire string) (*Stage, error) {
	pki, err := newPKI(dir)
	if err != nil {
		return nil, fmt.Errorf("certificates in %s: %w", dir, err)
	}
	// Ports below those that the kernel gives to clients, so that ten thousand
	// clients do not take them.
	return &Stage{Dir: dir, Tools: tools, Moire: moire, PKI: pki, port: 20000 + os.Getpid()%4000}, nil
}

// Sub is a stage for one part, with the same certificates and ports of its own.
func (s *Stage) Sub(name string) (*Stage, error) {
	dir, err := s.folder(name)
	return &Stage{Dir: dir, Tools: s.Tools, Moire: s.Moire, PKI: s.PKI, port: s.Port() + 1}, err
}

// Tool is the path of an installed judge.
func (s *Stage) Tool(name string) string { return filepath.Join(s.Tools, name) }

// Port is a free port on 127.0.0.1.
func (s *Stage) Port() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 5000 {
		s.port++
		l, err := net.Listen("tcp", s.address(s.port))
		if err != nil {
			continue
		}
		l.Close()
		return s.port
	}
	panic("no free port between 20000 and 32000")
}

// Address is 127.0.0.1 with a free port.
func (s *Stage) Address() string { return s.address(s.Port()) }

func (s *Stage) address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// folder makes a directory for one process.
func (s *Stage) folder(name string) (string, error) {
	s.mu.Lock()
	s.count++
	dir := filepath.Join(s.Dir, fmt.Sprintf("%s-%d", name, s.count))
	s.mu.Unlock()
	return dir, os.MkdirAll(dir, 0o700)
}

// Run starts a program in the background; Close ends it.
func (s *Stage) Run(ctx context.Context, name string, args ...string) (*Process, error) {
	dir, err := s.folder(filepath.Base(name))
	if err != nil {
		return nil, err
	}
	p, err := Start(ctx, filepath.Join(dir, "log"), name, args...)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.running = append(s.running, p)
	s.mu.Unlock()
	return p, nil
}

// Close ends all that runs.
func (s *Stage) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.running) - 1; i >= 0; i-- {
		s.running[i].Stop()
	}
	s.running = nil
}

// Kinds of proxies that Proxy can start.
var Kinds = []string{"moire", "nginx", "haproxy", "envoy"}

// Placing is put in front of the proxy's command line, for example taskset -c 1.
type Placing []string

// Proxy starts a proxy of this kind that is what c says, and waits until it
// listens. Peers understand the part of Config that the judges use.
func (s *Stage) Proxy(ctx context.Context, kind string, c *l7.Config, placing Placing) (*Process, error) {
	dir, err := s.folder(kind)
	if err != nil {
		return nil, err
	}
	var command []string
	switch kind {
	case "moire":
		command, err = s.moire(dir, c)
	case "nginx":
		command, err = s.nginx(dir, c)
	case "haproxy":
		command, err = s.haproxy(dir, c)
	case "envoy":
		command, err = s.envoy(dir, c)
	default:
		return nil, fmt.Errorf("proxy %q is none of %v", kind, Kinds)
	}
	if err != nil {
		return nil, err
	}
	command = append(placing[:len(placing):len(placing)], command...)
	p, err := s.Run(ctx, command[0], command[1:]...)
	if err != nil {
		return nil, err
	}
	p.Name = kind
	var addresses []string
	for _, l := range c.Listeners {
		addresses = append(addresses, l.Address)
	}
	return p, p.Await(addresses...)
}

func (s *Stage) moire(dir string, c *l7.Config) ([]string, error) {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "config.json")
	return []string{s.Moire, "--config", path}, os.WriteFile(path, b, 0o600)
}

// Certificate is the server's, as Config names it.
const Certificate = "server"

// CallerCertificate is the client's, as Config names it.
const CallerCertificate = "caller"

// Certificates for a Config.
func (s *Stage) Certificates() []l7.Certificate {
	return []l7.Certificate{
		{Name: Certificate, ChainFile: s.PKI.Chain, KeyFile: s.PKI.Key},
		{Name: CallerCertificate, ChainFile: s.PKI.ClientChain, KeyFile: s.PKI.ClientKey},
	}
}

// Authority is the PEM of CA.
func (s *Stage) Authority() string {
	b, err := os.ReadFile(s.PKI.CA)
	if err != nil {
		panic(err) // New wrote it
	}
	return string(b)
}
