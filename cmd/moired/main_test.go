package main

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"moire.dev/moire/control"
)

func run(args ...string) (string, error) {
	cmd := root()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(context.Background())
	return out.String(), err
}

func TestUsage(t *testing.T) {
	for args, want := range map[string]string{
		"serve":                         `unknown command "serve"`,
		"--nonsense":                    "see moired --help",
		"--log-level loud":              "debug, info, warn or error",
		"--api-listen 7443":             "not host:port",
		"--advertise 192.0.2.1:7":       "has a port",
		"token make":                    "use create, list or revoke",
		"token revoke":                  "needs the id of one token",
		"token create --life -1h":       "must be positive",
		"ca-hash now":                   "takes no arguments",
		"--etcd-cert x --api-listen :1": "EtcdKey",
	} {
		_, err := run(append([]string{"--dir", t.TempDir()}, strings.Fields(args)...)...)
		var wrong usageError
		if err == nil || !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want a usage error with %q", args, err, want)
		}
	}
}

func TestHelpNamesEveryFlag(t *testing.T) {
	out, err := run("--help")
	if err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"--dir", "--api-listen", "--discovery-listen", "--advertise", "--etcd-servers", "--etcd-ca", "--etcd-cert",
		"--etcd-key", "--kubeconfig", "--run-dir", "--log-level", "token", "ca-hash", "Exit codes"} {
		if !strings.Contains(out, flag) {
			t.Errorf("help does not tell of %s", flag)
		}
	}
}

func TestTokens(t *testing.T) {
	dir := t.TempDir()
	if _, err := run("--dir", dir, "token", "create"); err == nil || !strings.Contains(err.Error(), "start moired once") {
		t.Errorf("without a control plane: got %v", err)
	}
	// A control plane that cannot listen has made its CA before it says so.
	c, err := control.New(control.Config{Dir: dir, RunDir: filepath.Join(dir, "run"), APIListen: "127.0.0.1:0", DiscoveryListen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Run(ctx); err != nil {
		t.Fatal(err)
	}
	token, err := run("--dir", dir, "token", "create", "--once", "--note", "rack 7")
	if err != nil {
		t.Fatal(err)
	}
	id, _, _ := strings.Cut(strings.TrimSpace(token), ".")
	if out, err := run("--dir", dir, "token", "list"); err != nil || !strings.Contains(out, id) || !strings.Contains(out, "one node") || !strings.Contains(out, "rack 7") {
		t.Errorf("got %q, %v", out, err)
	}
	if _, err := run("--dir", dir, "token", "revoke", id); err != nil {
		t.Error(err)
	}
	if _, err := run("--dir", dir, "token", "revoke", id); err == nil {
		t.Error("a token was revoked twice")
	}
	if out, err := run("--dir", dir, "ca-hash"); err != nil || !strings.HasPrefix(out, "sha256:") {
		t.Errorf("got %q, %v", out, err)
	}
}
