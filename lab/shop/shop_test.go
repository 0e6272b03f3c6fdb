package shop

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestNeighbourIsAsked(t *testing.T) {
	db := httptest.NewServer(http.HandlerFunc(Server{Say: "db of acme"}.answer))
	defer db.Close()
	web := httptest.NewServer(http.HandlerFunc(Server{Say: "web of acme", Ask: []string{db.URL}}.answer))
	defer web.Close()
	got, err := Client{Limit: 5 * time.Second}.Fetch(context.Background(), web.URL)
	if err != nil {
		t.Fatal(err)
	}
	want := "web of acme (asked by 127.0.0.1), whose neighbour says: db of acme (asked by 127.0.0.1)"
	if strings.TrimSpace(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestFetchIsBounded(t *testing.T) {
	stop := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stop }))
	defer slow.Close()
	defer close(stop)
	_, err := Client{Limit: 50 * time.Millisecond}.Fetch(context.Background(), slow.URL)
	if err == nil || !strings.Contains(err.Error(), "no answer from") {
		t.Errorf("got %v, want an error that says no answer", err)
	}
}

func TestTallyCountsAnswers(t *testing.T) {
	n := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n++; n%4 == 0 {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		Server{Say: r.Header.Get("X-Version")}.answer(w, r)
	}))
	defer srv.Close()
	got := Client{Header: []string{"x-version: v2"}}.Tally(context.Background(), srv.URL, 8)
	want := "    6  v2 (asked by 127.0.0.1)\n    2  " + srv.URL + " answers 403 Forbidden: no\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
