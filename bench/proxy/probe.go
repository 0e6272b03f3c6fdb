package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// probe is one question whose answer must be right before it is worth measuring.
type probe struct {
	name    string
	port    func(ports) int
	proto   string // HTTP/1.1, HTTP/2.0
	secure  bool
	mutual  bool
	grpc    bool
	status  int
	without []string
}

var probes = []probe{
	{name: "HTTP/1.1", port: plain, proto: "HTTP/1.1"},
	{name: "HTTP/2 to HTTP/1.1", port: func(p ports) int { return p.HTTP2 }, proto: "HTTP/2.0"},
	{name: "HTTP/2 to HTTP/2", port: func(p ports) int { return p.Both2 }, proto: "HTTP/2.0", without: []string{"nginx"}},
	{name: "gRPC with its trailers", port: func(p ports) int { return p.GRPC }, proto: "HTTP/2.0", grpc: true},
	{name: "TLS, HTTP/1.1", port: secure, proto: "HTTP/1.1", secure: true},
	{name: "TLS, HTTP/2", port: secure, proto: "HTTP/2.0", secure: true},
	{name: "mutual TLS", port: mutual, proto: "HTTP/1.1", secure: true, mutual: true},
	{name: "redirect after mutual TLS", port: func(p ports) int { return p.Shake }, proto: "HTTP/1.1", secure: true, mutual: true, status: http.StatusFound},
	{name: "TCP", port: through, proto: "HTTP/1.1", without: []string{"caddy"}},
	{name: "mesh hop", port: func(p ports) int { return p.Mesh }, proto: "HTTP/1.1"},
	{name: "three endpoints, round robin", port: func(p ports) int { return p.Even }, proto: "HTTP/1.1"},
	{name: "three endpoints, best balancer", port: func(p ports) int { return p.Clever }, proto: "HTTP/1.1"},
}

// check asks every listener of every proxy, with everything on.
func (b *bench) check(ctx context.Context) error {
	all, stop := b.launchAll(ctx, everything)
	defer stop()
	fmt.Printf("| listener | %s |\n|---%s|\n", strings.Join(b.proxies, " | "), strings.Repeat("|---", len(b.proxies)))
	for _, p := range probes {
		cells := []string{p.name}
		for i, in := range all {
			cell := "right"
			switch err := p.ask(ctx, in); {
			case slices.Contains(p.without, b.proxies[i]):
				cell = "-"
			case err != nil:
				cell = "fails"
				b.fail(p.name, b.proxies[i], err)
			}
			cells = append(cells, cell)
		}
		fmt.Printf("| %s |\n", strings.Join(cells, " | "))
	}
	return nil
}

func (p probe) ask(ctx context.Context, in *instance) error {
	if in == nil {
		return errors.New("it does not run")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	client, err := p.client(in)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	req, err := p.request(ctx, in)
	if err != nil {
		return err
	}
	answer, err := client.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	want, size := max(p.status, http.StatusOK), messageSize
	if p.grpc {
		size = len(grpcBody)
	}
	switch {
	case answer.StatusCode != want || answer.Proto != p.proto:
		return fmt.Errorf("%s %s, not %s %d: %.300q", answer.Proto, answer.Status, p.proto, want, body)
	case p.status == 0 && len(body) != size:
		return fmt.Errorf("%d bytes, not %d", len(body), size)
	case p.grpc && answer.Trailer.Get("Grpc-Status") != "0":
		return fmt.Errorf("trailers %v without grpc-status 0", answer.Trailer)
	}
	return nil
}

func (p probe) request(ctx context.Context, in *instance) (*http.Request, error) {
	scheme, method, path := "http", http.MethodGet, "/p0/128"
	var body io.Reader
	if p.secure {
		scheme = "https"
	}
	if p.grpc {
		method, path, body = http.MethodPost, "/p0/Unary", bytes.NewReader(grpcBody)
	}
	req, err := http.NewRequestWithContext(ctx, method, scheme+"://h0.bench.test"+path, body)
	if p.grpc && err == nil {
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("Te", "trailers")
	}
	return req, err
}

func (p probe) client(in *instance) (*http.Client, error) {
	var protocols http.Protocols
	protocols.SetHTTP1(p.proto == "HTTP/1.1")
	protocols.SetHTTP2(p.secure && p.proto == "HTTP/2.0")
	protocols.SetUnencryptedHTTP2(!p.secure && p.proto == "HTTP/2.0")
	cfg, err := clientTLS(&job{mutual: p.mutual, dir: in.certs})
	if err != nil {
		return nil, err
	}
	cfg.NextProtos = nil
	to := address(p.port(in.port))
	t := &http.Transport{Protocols: &protocols, TLSClientConfig: cfg,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, to)
		},
	}
	if p.secure {
		t.DialTLSContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			cfg.NextProtos = []string{map[string]string{"HTTP/1.1": "http/1.1", "HTTP/2.0": "h2"}[p.proto]}
			return (&tls.Dialer{Config: cfg}).DialContext(ctx, network, to)
		}
	}
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

// answering waits until the proxy's first listener answers as it should.
func (in *instance) answering(ctx context.Context) error {
	for tries := 0; ; tries++ {
		err := probes[0].ask(ctx, in)
		if err == nil || tries == 20 || ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}
