package shop

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
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
	// Delay before each answer.
	Delay time.Duration
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
	select {
	case <-time.After(s.Delay):
	case <-r.Context().Done():
		return
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	line := fmt.Sprintf("%s (asked by %s)", s.Say, host)
	for _, url := range s.Ask {
		got, err := Client{Limit: 2 * time.Second}.Fetch(r.Context(), url)
		if err != nil {
			got = err.Error()
		}
		line += ", whose neighbour says: " + strings.TrimSpace(got)
	}
	fmt.Fprintln(w, line)
}

// Client asks a server.
type Client struct {
	// Header of each request, Name: value.
	Header []string
	// Limit of each request in time; 0: 3 s.
	Limit time.Duration
}

// Fetch gets a URL, bounded in time and size, without keeping a connection. An
// answer of 400 and more is an error.
func (c Client) Fetch(ctx context.Context, url string) (string, error) {
	limit := cmp.Or(c.Limit, 3*time.Second)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	for _, h := range c.Header {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return "", fmt.Errorf("header %q: write it as 'name: value'", h)
		}
		req.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
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
	if err == nil && resp.StatusCode >= 400 {
		err = fmt.Errorf("%s answers %s: %s", url, resp.Status, strings.TrimSpace(string(b)))
	}
	return string(b), err
}

// Tally fetches a URL so many times and counts equal answers, failures too, the
// most frequent first.
func (c Client) Tally(ctx context.Context, url string, times int) string {
	count := map[string]int{}
	for range times {
		if ctx.Err() != nil {
			break
		}
		got, err := c.Fetch(ctx, url)
		if err != nil {
			got = err.Error()
		}
		count[strings.TrimSpace(got)]++
	}
	answers := slices.SortedFunc(maps.Keys(count), func(a, b string) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), strings.Compare(a, b))
	})
	var out strings.Builder
	for _, a := range answers {
		fmt.Fprintf(&out, "%5d  %s\n", count[a], a)
	}
	return out.String()
}
