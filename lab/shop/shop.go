package shop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Server answers every request with one line.
type Server struct {
	// Listen is host:port; "[::]:8080" takes IPv4 and IPv6.
	Listen string
	// Say is the answer.
	Say string
	// Ask are the URLs of neighbours whose answers are added.
	Ask []string
}

// Run serves until ctx ends.
func (s Server) Run(ctx context.Context) error {
	l, err := net.Listen("tcp", s.Listen)
	if err != nil {
		return err
	}
	h := &http.Server{Handler: http.HandlerFunc(s.answer), ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { h.Close() })
	defer stop()
	if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s Server) answer(w http.ResponseWriter, r *http.Request) {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	line := fmt.Sprintf("%s (asked by %s)", s.Say, host)
	for _, url := range s.Ask {
		got, err := Fetch(r.Context(), url, 2*time.Second)
		if err != nil {
			got = err.Error()
		}
		line += ", whose neighbour says: " + strings.TrimSpace(got)
	}
	fmt.Fprintln(w, line)
}

// Fetch gets a URL, bounded in time and size, without keeping a connection.
func Fetch(ctx context.Context, url string, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if errors.Is(err, context.DeadlineExceeded) {
		return "", fmt.Errorf("no answer from %s in %s", url, limit)
	}
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	return string(b), err
}
