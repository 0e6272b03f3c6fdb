package store

import (
	"bytes"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
)

func prepared(t *testing.T, cfg Config) keyFiles {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	k, err := s.prepareFiles()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestKeysAreKept: a restart changes no file; another name renews the serving
// certificate only, under the same CA and key.
func TestKeysAreKept(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Listen: "192.0.2.1:7443"}
	k := prepared(t, cfg)
	all := []string{k.caCert, k.caKey, k.servingCert, k.serveKey, k.adminCert, k.adminKey, k.serviceAccountKey}
	before := map[string][]byte{}
	for _, f := range all {
		before[f] = read(t, f)
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(f, ".key") && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f, info.Mode())
		}
	}
	prepared(t, cfg)
	for _, f := range all {
		if !bytes.Equal(before[f], read(t, f)) {
			t.Errorf("%s changed with the restart", f)
		}
	}
	cfg.Names = []string{"api.example.org", "192.0.2.77"}
	prepared(t, cfg)
	for _, f := range all {
		if same := bytes.Equal(before[f], read(t, f)); same == (f == k.servingCert) {
			t.Errorf("%s after a change of names: same is %v", f, same)
		}
	}
	cert, err := readCert(k.servingCert)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"localhost", "api.example.org", "192.0.2.1", "192.0.2.77", "127.0.0.1", "::1"} {
		if err := cert.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	left, err := filepath.Glob(filepath.Join(k.dir, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files were left: %v %v", left, err)
	}
}

// TestRenewal: certificates close to their end are renewed, broken ones named.
func TestRenewal(t *testing.T) {
	k := prepared(t, Config{Dir: t.TempDir()})
	ca, err := loadOrMakeCA(k)
	if err != nil {
		t.Fatal(err)
	}
	key, err := loadOrMakeKey(k.adminKey)
	if err != nil {
		t.Fatal(err)
	}
	old, err := readCert(k.adminCert)
	if err != nil {
		t.Fatal(err)
	}
	short := &x509.Certificate{Subject: old.Subject, ExtKeyUsage: old.ExtKeyUsage, NotAfter: time.Now().Add(time.Hour)}
	der, err := ca.sign(short, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFile(k.adminCert, certPEM(der), 0o644); err != nil {
		t.Fatal(err)
	}
	prepared(t, Config{Dir: filepath.Dir(k.dir)})
	now, err := readCert(k.adminCert)
	if err != nil || time.Until(now.NotAfter) < leafLife/2 {
		t.Errorf("a certificate with an hour left was not renewed: %v %v", now.NotAfter, err)
	}
	if err := os.WriteFile(k.caCert, certPEM(der), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadOrMakeCA(k); err == nil || !strings.Contains(err.Error(), "does not belong to") {
		t.Errorf("a CA that does not fit its key: %v", err)
	}
	if err := os.WriteFile(k.caKey, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadOrMakeCA(k); err == nil || !strings.Contains(err.Error(), "holds no EC private key; restore it from a backup") {
		t.Errorf("a broken CA key: %v", err)
	}
}

func TestReachable(t *testing.T) {
	for in, want := range map[string]string{"0.0.0.0:1": "127.0.0.1:1", "[::]:1": "127.0.0.1:1", "192.0.2.1:1": "192.0.2.1:1", "[fd00::1]:1": "[fd00::1]:1"} {
		a, err := net.ResolveTCPAddr("tcp", in)
		if err != nil {
			t.Fatal(err)
		}
		if got := reachable(a); got != want {
			t.Errorf("reachable(%s) = %s, want %s", in, got, want)
		}
	}
}

// TestLogs: only errors of a steady server are worth a line, as warnings.
func TestLogs(t *testing.T) {
	var out bytes.Buffer
	l := logs{steady: new(atomic.Bool), out: slog.New(slog.NewTextHandler(&out, nil))}
	foreign := slog.New(demote{logs: l, next: l.out.Handler()}).With("a", 1).WithGroup("g")
	etcd := l.etcdLogger().With(zap.String("who", "etcd"))
	say := func() string {
		out.Reset()
		foreign.Info("information")
		foreign.Error("klog trouble", "b", 2)
		etcd.Info("information")
		etcd.Warn("slow")
		etcd.Error("etcd trouble", zap.Int("n", 3), zap.Error(net.ErrClosed))
		return out.String()
	}
	if got := say(); got != "" {
		t.Errorf("while starting: %s", got)
	}
	l.started()
	got := say()
	for _, want := range []string{`level=WARN msg="klog trouble" a=1 g.b=2`, `level=WARN msg="etcd trouble"`, "who=etcd n=3", "use of closed network connection"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in:\n%s", want, got)
		}
	}
	if strings.Count(got, "\n") != 2 {
		t.Errorf("more than the two errors:\n%s", got)
	}
	l.stopping()
	if got := say(); got != "" {
		t.Errorf("while stopping: %s", got)
	}
}
