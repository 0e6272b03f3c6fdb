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
	got, err := Fetch(context.Background(), web.URL, 5*time.Second)
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
	_, err := Fetch(context.Background(), slow.URL, 50*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "no answer from") {
		t.Errorf("got %v, want an error that says no answer", err)
	}
}
