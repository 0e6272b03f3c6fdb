package store

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// childStore is a store in a process of its own.
type childStore struct {
	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	said chan string
}

// startChild runs a store in dir and waits until it is ready.
func startChild(t *testing.T, dir string, env ...string) *childStore {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &childStore{t: t, dir: dir, cmd: exec.Command(exe), said: make(chan string, 10)}
	c.cmd.Env = append(append(os.Environ(), childEnv+"="+dir), env...)
	logFile, err := os.OpenFile(filepath.Join(t.TempDir(), "log"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.Stderr = logFile
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.said)
		for s := bufio.NewScanner(out); s.Scan(); {
			c.said <- s.Text()
		}
	}()
	t.Cleanup(func() {
		c.kill()
		if t.Failed() {
			data, _ := os.ReadFile(logFile.Name())
			t.Logf("log of the child:\n%s", data)
		}
		logFile.Close()
	})
	c.expect("ready")
	return c
}

func (c *childStore) expect(line string) {
	c.t.Helper()
	select {
	case l, open := <-c.said:
		if !open || l != line {
			c.t.Fatalf("the child said %q, not %q", l, line)
		}
	case <-time.After(60 * time.Second):
		c.t.Fatalf("the child did not say %q", line)
	}
}

func (c *childStore) kill() {
	if c.cmd.ProcessState == nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait() // it was killed
	}
}

// stop ends the child gently and returns what it logged after that.
func (c *childStore) stop() string {
	c.t.Helper()
	before, err := os.ReadFile(c.cmd.Stderr.(*os.File).Name())
	if err != nil {
		c.t.Fatal(err)
	}
	begin := time.Now()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		c.t.Fatal(err)
	}
	c.expect("stopped")
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("the child ended with %v", err)
	}
	c.t.Logf("stopped after %v", time.Since(begin).Round(time.Millisecond))
	after, err := os.ReadFile(c.cmd.Stderr.(*os.File).Name())
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimPrefix(string(after), string(before))
}

func (c *childStore) kubectl(stdin string, args ...string) string {
	c.t.Helper()
	out, errs, err := kubectlWith(c.t, filepath.Join(c.dir, "kubeconfig"), stdin, args...)
	if err != nil {
		c.t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, out, errs)
	}
	return out
}

// TestKillKeepsAcknowledgedWrites writes as fast as it can, kills the store in
// the middle, and wants everything that was acknowledged back. Then it stops
// and starts it gently: same keys, same data, a quiet log.
func TestKillKeepsAcknowledgedWrites(t *testing.T) {
	dir := t.TempDir()
	port := freePort(t)
	listen := childEnv + "_LISTEN=" + port
	c := startChild(t, dir, listen)
	kubeconfig, err := os.ReadFile(filepath.Join(dir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "kubeconfig")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("kubeconfig has mode %v, %v", info.Mode(), err)
	}
	ca, admin := adminClient(t, dir)
	written := make(chan int, 1)
	enough := make(chan struct{})
	go func() {
		n := 0
		for {
			body := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c%d"}}`, n)
			resp, err := admin.Post("https://"+port+"/api/v1/namespaces/default/configmaps", "application/json", strings.NewReader(body))
			if err != nil {
				break
			}
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusCreated {
				break
			}
			if n++; n == 30 {
				close(enough)
			}
		}
		written <- n
	}()
	select {
	case <-enough:
	case <-time.After(30 * time.Second):
		t.Error("thirty writes took more than thirty seconds")
	}
	c.kill()
	n := <-written

	c = startChild(t, dir, listen)
	out := c.kubectl("", "get", "configmaps", "-n", "default", "-o", "name")
	if got := strings.Count(out, "configmap/c"); got != n && got != n+1 { // one may have been made but not answered
		t.Errorf("%d writes were acknowledged before kill -9, %d objects are there after it", n, got)
	}
	again, err := os.ReadFile(filepath.Join(dir, "kubeconfig"))
	if err != nil || string(again) != string(kubeconfig) {
		t.Errorf("the kubeconfig changed with the restart (%v)", err)
	}
	checkAnonymous(t, ca, port)
	w := watchUntilClosed(t, admin, port)
	if said := c.stop(); said != "" {
		t.Errorf("a gentle stop is not worth these lines:\n%s", said)
	}
	<-w
	// Stopped at once after a restart, when hooks still run: they are waited for,
	// because one that is interrupted ends the process.
	startChild(t, dir, listen).stop()
	startChild(t, dir, listen).kubectl("", "get", "configmap", "c0", "-n", "default")
}

// watchUntilClosed opens a watch and returns a channel that is closed when the
// server ends it.
func watchUntilClosed(t *testing.T, client *http.Client, addr string) <-chan struct{} {
	t.Helper()
	resp, err := client.Get("https://" + addr + "/apis/moire.dev/v1alpha1/workloads?watch=1")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body) // ends with the server, in whatever way
	}()
	return done
}

// checkAnonymous: without credentials one may ask for health and nothing else.
func checkAnonymous(t *testing.T, ca *x509.CertPool, addr string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca}}}
	for path, want := range map[string]int{
		"/livez": 200, "/readyz": 200, "/healthz": 200,
		"/version": 401, "/api": 401, "/apis/moire.dev/v1alpha1/networks": 401, "/metrics": 401, "/openapi/v3": 401,
	} {
		eventually(t, func() string { // health is fully green a second after a restart
			resp, err := client.Get("https://" + addr + path)
			if err != nil {
				return err.Error()
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				return fmt.Sprintf("%s without credentials: %d, want %d", path, resp.StatusCode, want)
			}
			return ""
		})
	}
}

// adminClient returns the CA of a store and a client with its admin certificate.
func adminClient(t *testing.T, dir string) (*x509.CertPool, *http.Client) {
	t.Helper()
	client := adminHTTP(t, dir)
	return client.Transport.(*http.Transport).TLSClientConfig.RootCAs, client
}

func adminHTTP(t testing.TB, dir string) *http.Client {
	t.Helper()
	files := newKeyFiles(dir)
	pem, err := os.ReadFile(files.caCert)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	pair, err := tls.LoadX509KeyPair(files.adminCert, files.adminKey)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}},
		ForceAttemptHTTP2: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestExternalEtcd runs two stores beside each other on one etcd.
func TestExternalEtcd(t *testing.T) {
	etcd, err := exec.LookPath("etcd")
	if err != nil {
		t.Skip("needs etcd in PATH: install the package etcd-server")
	}
	client, peer := "http://"+freePort(t), "http://"+freePort(t)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, etcd, "--data-dir", t.TempDir(), "--log-level=error",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
	})
	env := childEnv + "_ETCD=" + client
	first := startChild(t, t.TempDir(), env)
	first.kubectl(networkWeb, "create", "-n", "default", "-f", "-")
	second := startChild(t, t.TempDir(), env)
	if out := second.kubectl("", "get", "networks", "-n", "default", "-o", "name"); out != "network.moire.dev/web\n" {
		t.Errorf("the second store does not see what the first wrote: %q", out)
	}
	second.kubectl("", "delete", "network", "web", "-n", "default")
	first.kubectl("", "wait", "--for=delete", "network/web", "-n", "default", "--timeout=10s")
	if _, err := os.Stat(filepath.Join(first.dir, "etcd")); err == nil {
		t.Error("a store with an external etcd made one of its own")
	}
}

func TestOneStorePerDirectory(t *testing.T) {
	s, err := New(Config{Dir: shared.dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "is in use by another control plane; stop that one or choose another --dir") {
		t.Errorf("a second store in the same directory: %v", err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "Run was called twice") {
		t.Errorf("Run twice: %v", err)
	}
}

func TestBadConfig(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"no directory":     {Config{}, "Dir is empty"},
		"bad address":      {Config{Dir: "x", Listen: "here"}, `Listen "here" is not host:port`},
		"half a key pair":  {Config{Dir: "x", EtcdCert: "c"}, "EtcdCert and EtcdKey need each other"},
		"virtual, no code": {Config{Dir: "x", Virtual: []Virtual{{Resource: "flows"}}}, `virtual resource "flows" needs`},
	} {
		if _, err := New(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+t.TempDir(), childEnv+"_LISTEN="+l.Addr().String())
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "address already in use; stop what uses the port or choose another --listen") {
		t.Errorf("port in use: %v\n%s", err, out)
	}
}
