package attack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Sample is how an honest client fared.
type Sample struct {
	Asked, Answered int
	P50, P99, Worst time.Duration
	// Error is the first that it met.
	Error string
}

// Honest asks rate times a second for as long as span, over connections that
// are kept and, one time in ten, over a new one. It asks when a question is due
// whatever became of those before, so that a stall shows in all that it delays.
func Honest(ctx context.Context, address string, rate int, span time.Duration) Sample {
	kept := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	once := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	defer kept.CloseIdleConnections()
	n := int(span.Seconds() * float64(rate))
	took := make([]time.Duration, n)
	failed := make([]error, n)
	var wg sync.WaitGroup
	start := time.Now()
	asked := 0
	for i := range n {
		due := start.Add(time.Duration(i) * time.Second / time.Duration(rate))
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(due)):
		}
		if ctx.Err() != nil {
			break
		}
		asked++
		client := kept
		if i%10 == 9 {
			client = once
		}
		wg.Go(func() {
			asked := time.Now()
			failed[i] = ask(client, address)
			took[i] = time.Since(asked)
		})
	}
	wg.Wait()
	return sum(took[:asked], failed[:asked])
}

func ask(client *http.Client, address string) error {
	resp, err := client.Get("http://" + address + "/")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || len(b) == 0 {
		return fmt.Errorf("status %d, %d bytes", resp.StatusCode, len(b))
	}
	return nil
}

func sum(took []time.Duration, failed []error) Sample {
	s := Sample{Asked: len(took)}
	for _, err := range failed {
		if err == nil {
			s.Answered++
		} else if s.Error == "" {
			s.Error = err.Error()
		}
	}
	if len(took) == 0 {
		return s
	}
	slices.Sort(took)
	s.P50, s.P99, s.Worst = took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
	return s
}

// loopback refuses to attack anything else.
func loopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return errors.New(address + " is no loopback address; nothing else is attacked")
	}
	return nil
}
