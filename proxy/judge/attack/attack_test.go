package attack

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestNothingElseIsAttacked(t *testing.T) {
	for _, address := range []string{"10.0.0.1:80", "192.0.2.1:80", "example.com:80", "[2001:db8::1]:80", "127.0.0.1"} {
		if err := loopback(address); err == nil {
			t.Errorf("%s would be attacked", address)
		}
	}
	for _, address := range []string{"127.0.0.1:80", "127.9.9.9:80", "[::1]:80"} {
		if err := loopback(address); err != nil {
			t.Error(err)
		}
	}
}

func TestNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range Attacks() {
		if seen[a.Name] {
			t.Errorf("two attacks are called %s", a.Name)
		}
		seen[a.Name] = true
		if a.one == nil || a.Span <= 0 || a.Span > time.Minute || a.Connections < 1 || a.Connections > Many {
			t.Errorf("%s: span %s, %d connections", a.Name, a.Span, a.Connections)
		}
	}
}

// TestOutcomes: who is closed is told from who is not.
func TestOutcomes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 1000)
				for i := 0; i < 5 || n%2 == 1; i++ { // every second one is patient
					if _, err := c.Read(b); err != nil {
						return
					}
				}
			}()
		}
	}()
	a := endless("test", "", "", "x")
	a.Span, a.Connections, a.Again = 300*time.Millisecond, 2, 0
	out, err := a.Run(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if out.Opened != 2 || out.Closed != 1 || out.First == 0 {
		t.Errorf("%+v, want one of two closed", out)
	}
}

func TestHonest(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			_, _ = io.WriteString(w, "ok")
		}
	}))
	defer s.Close()
	got := Honest(t.Context(), strings.TrimPrefix(s.URL, "http://"), 100, 200*time.Millisecond)
	if got.Asked != 20 || got.Answered != 20 || got.P99 == 0 || got.P99 < got.P50 {
		t.Errorf("%+v", got)
	}
}
