package control

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/flow"
	"moire.dev/moire/flow/record"
)

const flowsPath = "/apis/moire.dev/v1alpha1/namespaces/shop/flows"

func ask(t *testing.T, h http.Handler, method, path string) (*httptest.ResponseRecorder, metav1.Status) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	var s metav1.Status
	if w.Code != http.StatusOK {
		if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil || s.Kind != "Status" || s.Code != int32(w.Code) {
			t.Errorf("%s %s: not a Status: %s", method, path, w.Body)
		}
	}
	return w, s
}

func TestFlowsRefuses(t *testing.T) {
	h := flowsHandler{archive: flow.NewArchive(10, 0), now: time.Now, life: t.Context()}
	for path, want := range map[string]string{
		flowsPath + "?verdict=maybe":  "write allow or deny",
		flowsPath + "?limit=-1":       "not a number of records",
		flowsPath + "?follow=perhaps": "neither true nor false",
		flowsPath + "?project=bank":   "not the project of the path",
	} {
		if w, s := ask(t, h, http.MethodGet, path); w.Code != http.StatusBadRequest || !strings.Contains(s.Message, want) {
			t.Errorf("%s: got %d %q, want %q", path, w.Code, s.Message, want)
		}
	}
	if w, _ := ask(t, h, http.MethodDelete, flowsPath); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("DELETE: got %d", w.Code)
	}
	if w, _ := ask(t, explainHandler{loop: newLoop(silent(), time.Now, nil)}, http.MethodGet, strings.Replace(flowsPath, "flows", "explain", 1)+"?from=a&to=b&port=1"); w.Code != http.StatusServiceUnavailable {
		t.Errorf("explain before the first facts: got %d", w.Code)
	}
}

// TestFlowsFollowEnds: a follower sees what comes, and ends when we do.
func TestFlowsFollowEnds(t *testing.T) {
	archive := flow.NewArchive(10, 0)
	life, end := context.WithCancel(t.Context())
	s := httptest.NewServer(flowsHandler{archive: archive, now: time.Now, life: life})
	defer s.Close()
	rec := record.Record{ID: "1", Source: record.End{Project: "shop", Address: netip.MustParseAddr("10.0.0.1")}}
	other := record.Record{ID: "2", Source: record.End{Project: "bank"}}
	r, err := http.Get(s.URL + flowsPath + "?follow")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	archive.Add("n", []record.Record{other, rec}, 3)
	var got record.Record
	d := json.NewDecoder(r.Body)
	if err := d.Decode(&got); err != nil || got.ID != "1" {
		t.Errorf("got %+v, %v", got, err)
	}
	end()
	if err := d.Decode(&got); err == nil {
		t.Errorf("the stream goes on with %+v", got)
	}
	if w, _ := ask(t, flowsHandler{archive: archive, now: time.Now, life: life}, http.MethodGet, flowsPath); w.Header().Get("X-Moire-Records-Lost") != "3" {
		t.Errorf("losses are not told: %v", w.Header())
	}
}

func TestConfig(t *testing.T) {
	for name, cfg := range map[string]Config{
		"not host:port":  {APIListen: "7443"},
		"has a port":     {AdvertiseAddresses: []string{"192.0.2.1:7444"}},
		"is empty":       {AdvertiseAddresses: []string{""}},
		"such as 127.0.": {DiscoveryListen: "x"},
	} {
		if _, err := cfg.withDefaults(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%+v: got %v, want %q", cfg, err, name)
		}
	}
	c, err := Config{APIListen: "0.0.0.0:7443", AdvertiseAddresses: []string{"192.0.2.1", "2001:db8::1", "moire.example"}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	addr := addrOf(t, "0.0.0.0:7444")
	if got := c.servers(addr); !slices.Equal(got, []string{"192.0.2.1:7444", "[2001:db8::1]:7444", "moire.example:7444"}) {
		t.Errorf("servers: %v", got)
	}
	if got := c.names(); !slices.Equal(got, []string{"192.0.2.1", "2001:db8::1", "moire.example", "127.0.0.1"}) {
		t.Errorf("names: %v", got)
	}
	c.AdvertiseAddresses = nil
	if got := c.servers(addr); !slices.Equal(got, []string{"127.0.0.1:7444"}) {
		t.Errorf("servers: %v", got)
	}
	if got := c.servers(addrOf(t, "192.0.2.7:1")); !slices.Equal(got, []string{"192.0.2.7:1"}) {
		t.Errorf("servers: %v", got)
	}
}

type textAddr string

func (a textAddr) Network() string                  { return "tcp" }
func (a textAddr) String() string                   { return string(a) }
func addrOf(_ *testing.T, s string) (addr textAddr) { return textAddr(s) }

// TestJoinFile: it is whole, secret, and only its newest token is good.
func TestJoinFile(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Dir: dir}
	if _, err := CAHash(cfg); err == nil || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("an empty directory: got %v", err)
	}
	ca, err := cfg.openCA(nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := cfg.openCA(nil)
	if err != nil || again.CAHash() != ca.CAHash() {
		t.Fatalf("the CA is another one: %v", err)
	}
	mine, err := NewToken(cfg, time.Hour, true, "mine")
	if err != nil {
		t.Fatal(err)
	}
	var old joining
	for range 3 {
		if err := writeJoin(ca, dir, "self", []string{"a:1"}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, joinFile))
		if err != nil {
			t.Fatal(err)
		}
		var j joining
		if err := json.Unmarshal(b, &j); err != nil || j.CAHash != ca.CAHash() || !slices.Equal(j.Servers, []string{"a:1"}) {
			t.Fatalf("got %+v, %v", j, err)
		}
		if err := ca.CheckToken(j.Token); err != nil {
			t.Error(err)
		}
		if old.Token != "" && ca.CheckToken(old.Token) == nil {
			t.Error("the old token is still good")
		}
		old = j
	}
	all, err := Tokens(cfg)
	if err != nil || len(all) != 2 || all[0].Note != "mine" || !all[0].Once {
		t.Errorf("tokens: %+v, %v", all, err)
	}
	id, _, _ := strings.Cut(mine, ".")
	if err := RevokeToken(cfg, id); err != nil {
		t.Error(err)
	}
	if err := ca.CheckToken(mine); err == nil {
		t.Error("a revoked token is good")
	}
}

func TestInstanceStays(t *testing.T) {
	dir := t.TempDir()
	var names []string
	for range 2 {
		n, err := instance(dir)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, n)
	}
	if other, err := instance(t.TempDir()); err != nil || names[0] != names[1] || names[0] == other {
		t.Errorf("got %v and %s, %v", names, other, err)
	}
	if _, err := instance(filepath.Join(dir, "missing")); err == nil {
		t.Error("a missing directory is no error")
	}
}

func TestSleepEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if sleep(ctx, time.Hour) {
			t.Error("slept for an hour")
		}
	})
	cancel()
	wg.Wait()
	if !sleep(t.Context(), time.Nanosecond) {
		t.Error("did not sleep")
	}
}
