package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func address(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestSIGHUP: the file is read again; a wrong one changes nothing, and the end is
// a drain.
func TestSIGHUP(t *testing.T) {
	guard := make(chan os.Signal, 1) // a signal that comes too early ends no test
	signal.Notify(guard, syscall.SIGHUP)
	defer signal.Stop(guard)
	at := address(t)
	var ends [2]string
	for i := range ends {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, i) }))
		t.Cleanup(s.Close)
		ends[i] = s.Listener.Addr().String()
	}
	file := filepath.Join(t.TempDir(), "proxy.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := func(endpoint string) string {
		return fmt.Sprintf("name: test\nworkers: 1\nlisteners: [{name: web, address: %q}]\nroutes: [{name: r, rules: [{backends: [{cluster: c}]}]}]\nclusters: [{name: c, endpoints: [{address: %q}]}]\n", at, endpoint)
	}
	write(config(ends[0]))
	ctx, cancel := context.WithCancel(context.Background())
	s := setup{config: file, level: "error"}
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	answers := func(want string) bool {
		resp, err := http.Get("http://" + at + "/")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return err == nil && string(b) == want
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	hup := func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		<-guard
	}
	until("it does not serve", func() bool { return answers("0") })
	write("listeners: nonsense\n")
	hup()
	for range 10 {
		if !answers("0") {
			t.Error("a wrong file changed what is served")
		}
		time.Sleep(5 * time.Millisecond)
	}
	write(config(ends[1]))
	until("the second file is not applied", func() bool {
		hup()
		return answers("1")
	})
	http.DefaultClient.CloseIdleConnections()
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it does not end")
	}
}
