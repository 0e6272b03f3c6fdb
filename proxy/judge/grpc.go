package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"moire.dev/moire/proxy/judge/stage"
	"moire.dev/moire/snapshot/l7"
)

// interop are the cases of gRPC's suite that need no cloud. Left out:
// pick_first_unary, which wants a name of the server that gRPC's Go server does
// not tell, so that it fails without a proxy too.
var interop = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response",
	"status_code_and_message", "special_status_message", "custom_metadata",
	"unimplemented_method", "unimplemented_service",
	"rpc_soak", "channel_soak", "orca_per_rpc", "orca_oob",
}

// grpcInterop runs gRPC's own client against gRPC's own server through the
// proxy: plain, over TLS, and over a hop of mutual TLS from the proxy to itself
// (the suite's client has no certificate of its own).
func grpcInterop(ctx context.Context, h *hall) ([]verdict, error) {
	port := h.Port()
	server, err := h.Run(ctx, h.Tool("grpc-server"), "-port", strconv.Itoa(port))
	if err != nil {
		return nil, err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	if err := server.Await(address); err != nil {
		return nil, err
	}
	c := grpcConfig(h, address)
	p, err := h.Proxy(ctx, h.kind, c, nil)
	if err != nil {
		return nil, err
	}
	all := []verdict{{judge: "grpc-plain"}, {judge: "grpc-tls"}, {judge: "grpc-mtls"}}
	for i := range all {
		_, port, err := net.SplitHostPort(c.Listeners[i].Address)
		if err != nil {
			return nil, err
		}
		flags := []string{"-server_host", "127.0.0.1", "-server_port", port}
		if c.Listeners[i].TLS != nil {
			flags = append(flags, "-use_tls", "-use_test_ca", "-ca_file", h.PKI.CA, "-server_host_override", "a.test")
		}
		for _, name := range interop {
			all[i].pass(name, h.grpcCase(ctx, name, flags))
		}
		all[i].say("proxy lives", goneSays(p.Gone()))
	}
	return all, nil
}

// grpcConfig has listeners plain, tls, mtls (plain, whose requests go over
// mutual TLS) and hop, where that hop arrives.
func grpcConfig(h *hall, server string) *l7.Config {
	to := func(name, listener, cluster string) l7.Route {
		return l7.Route{Name: name, Listeners: []string{listener}, Rules: []l7.Rule{{Backends: []l7.Backend{{Cluster: cluster}}}}}
	}
	hop := h.Address()
	certificates := []string{stage.Certificate}
	return &l7.Config{
		Name: "judged", Workers: 1,
		Listeners: []l7.Listener{
			{Name: "plain", Address: h.Address(), Protocol: l7.HTTP2},
			{Name: "tls", Address: h.Address(), TLS: &l7.ServerTLS{Certificates: certificates}},
			{Name: "mtls", Address: h.Address(), Protocol: l7.HTTP2},
			{Name: "hop", Address: hop, Trusted: true, TLS: &l7.ServerTLS{Certificates: certificates, ClientCA: h.Authority(), Callers: []string{stage.Caller}}},
		},
		Routes: []l7.Route{to("plain", "plain", "server"), to("tls", "tls", "server"), to("mtls", "mtls", "hop"), to("hop", "hop", "server")},
		Clusters: []l7.Cluster{
			{Name: "server", Protocol: l7.HTTP2, Endpoints: []l7.Endpoint{{Address: server}}},
			{Name: "hop", Protocol: l7.HTTP2, Endpoints: []l7.Endpoint{{Address: hop}},
				TLS: &l7.ClientTLS{ServerName: "hop.test", CA: h.Authority(), Certificate: stage.CallerCertificate}},
		},
		Certificates: h.Certificates(),
	}
}

func (h *hall) grpcCase(ctx context.Context, name string, flags []string) error {
	bounded, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	args := append([]string{"-test_case", name, "-soak_iterations", "20", "-soak_overall_timeout_seconds", "20"}, flags...)
	if strings.HasPrefix(name, "orca") {
		args = append(args, "-service_config_json", `{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}`)
	}
	out, err := exec.CommandContext(bounded, h.Tool("grpc-client"), args...).CombinedOutput()
	if err == nil {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return fmt.Errorf("%w: %s", err, lines[len(lines)-1])
}
