package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDocs runs the commands of docs/proxy.md as they are written, with the
// endpoints of examples/proxy/split.yaml behind them.
func TestDocs(t *testing.T) {
	for port := 9001; port <= 9003; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatalf("the examples need port %d: %v", port, err)
		}
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%d\n", port) })}
		go s.Serve(l)
		t.Cleanup(func() { s.Close() })
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "bin", "moire-proxy"), ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	if err := os.Symlink(filepath.Join(root, "examples"), filepath.Join(dir, "examples")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs/proxy.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```sh proxy\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 3 {
		t.Fatalf("%d blocks with commands, the page has more", len(blocks))
	}
	var script strings.Builder
	script.WriteString("set -ex\n")
	for _, b := range blocks {
		script.WriteString(b[1])
		script.WriteString("\n")
	}
	script.WriteString("wait\n")
	// To a file: what the script leaves running would keep a pipe open.
	log, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	sh := exec.CommandContext(ctx, "bash", "-c", script.String())
	sh.Dir, sh.Stdout, sh.Stderr = dir, log, log
	sh.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	failed := sh.Run()
	if sh.Process != nil {
		syscall.Kill(-sh.Process.Pid, syscall.SIGKILL)
	}
	out, err := os.ReadFile(log.Name())
	if failed != nil || err != nil {
		t.Fatalf("%v %v\n%s", failed, err, out)
	}
	for _, want := range []string{"9003", "shop-v1", "draining"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
