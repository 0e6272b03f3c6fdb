//go:build !race

package api_test

import "strings"

// on puts what a policy says behind a target.
func on(kind, says string) string {
	if says != "" {
		says = ", " + says
	}
	return "{targetRefs: [{kind: " + kind + ", name: a}]" + says + "}"
}

var judgedTraffic = append(judgedBackends(), judgedFaults()...)

func judgedBackends() []spec {
	var out []spec
	for _, says := range []string{
		"", "balancer: {}", "balancer: {kind: Fastest}", "balancer: {kind: PeakEWMA, decay: 5s, choices: 3}", "balancer: {kind: RingHash, ringSize: 2048}", "balancer: {ringSize: 2048}", "balancer: {kind: Maglev, choices: 2}",
		"balancer: {choices: 1}", "balancer: {kind: Random, decay: 1s}", "balancer: {slowStart: 1m30s, panicPercent: 0}", "balancer: {slowStart: 90}", "balancer: {slowStart: 1.5s}", "balancer: {panicPercent: 101}",
		"outlier: {}", "outlier: {consecutive5xx: 0, interval: 5s, successRate: {hosts: 3, factorPerMille: 1900}}", "outlier: {consecutiveGateway: -1}", "outlier: {latencyPercent: 99}", "outlier: {maxEjectionPercent: 101}", "outlier: {latencyPercent: 300}",
		"outlier: {successRate: {volume: -1}}", "check: {type: http, path: /ok, statuses: [200, 204]}", "check: {}", "check: {type: tcp, path: /ok}", "check: {type: grpc, service: a.b}", "check: {type: http, service: a.b}", "check: {type: http, path: ok}",
		"check: {type: http, statuses: [99]}", "check: {type: http, statuses: [200, 200]}", "check: {type: tcp, successes: 101}", "check: {type: tcp, interval: 5}", "limits: {}", "limits: {connections: 10, retryBudget: {percent: 20}}", "limits: {connections: -1}",
		"limits: {retryBudget: {}}", "limits: {retryBudget: {percent: 101}}", "connections: {connectTimeout: 1s, proxyProtocol: 2}", "connections: {proxyProtocol: 3}", "connections: {maxRequests: -1}", "connections: {idleTimeout: forever}",
		"tls: {}", "tls: {hostname: db.example.com, minVersion: '1.3'}", "tls: {hostname: '*.example.com'}", "tls: {minVersion: '1.1'}", "tls: {insecure: true}", "tls: {insecure: true, ca: x}", "tls: {insecure: false, ca: x}", "tls: {servers: [spiffe://a/b]}",
		"tls: {servers: [a]}", "tls: {servers: [spiffe://a, spiffe://a]}", "locality: {}", "locality: {overprovisionPercent: 99}", "retry: {}", "retry: {codes: [500, 503], grpc: [14], attempts: 3, backoff: 50ms, methods: [POST], bodyBytes: 1024}",
		"retry: {codes: [399]}", "retry: {codes: [500, 500]}", "retry: {grpc: [0]}", "retry: {attempts: 11}", "retry: {methods: [post]}", "retry: {bodyBytes: 16777217}", "hedge: {}", "hedge: {delay: 50ms, most: 3}", "hedge: {delay: 50ms, most: 1}",
		"timeouts: {request: 10s, backendRequest: 2s}", "timeouts: {request: soon}", "rateLimits: [{requests: 10, per: 1s}]", "rateLimits: [{requests: 10}]", "rateLimits: [{per: 1s}]", "rateLimits: [{requests: 10, per: 1s, by: address, burst: 20}]",
		"rateLimits: [{requests: 10, per: 1s, by: name}]", "rateLimits: [{requests: 10, per: 1s, by: 'header:x-api-key'}]", "rateLimits: [{requests: 10, per: 1s, by: 'header:'}]", "rateLimits: [{requests: 10, per: 1s, burst: -1}]",
		"hash: [{header: x-user}]", "hash: [{header: x-user, cookie: a}]", "hash: [{}]", "hash: [{address: true}]", "hash: [{address: false}]", "hash: [{address: false, query: q}]", "hash: [{cookie: 'a b'}]", "subset: {version: v2}", "subset: {}",
	} {
		out = append(out, spec{"BackendPolicy", on("Service", says)})
		if says != "" && strings.HasPrefix(says, "balancer: {}") || strings.HasPrefix(says, "retry") || strings.HasPrefix(says, "tls: {}") {
			out = append(out, spec{"BackendPolicy", on("HTTPRoute", says)})
		}
	}
	for _, targets := range []string{
		"", "[]", "[{kind: Service}]", "[{name: a}]", "[{kind: TCPRoute, name: a}]", "[{kind: Service, name: a, port: 80}]", "[{kind: Service, name: a, port: 65536}]", "[{kind: Service, name: a, port: 80, sectionName: http}]",
		"[{kind: HTTPRoute, name: a, sectionName: rule}]", "[{kind: GRPCRoute, name: a, port: 80}]", "[{kind: Service, name: a}, {kind: Service, name: a}]", "[{kind: Service, name: a}, {kind: Service, name: a, port: 80}]",
	} {
		if targets != "" {
			targets = "targetRefs: " + targets + ", "
		}
		out = append(out, spec{"BackendPolicy", "{" + targets + "retry: {}}"}, spec{"FaultPolicy", "{" + targets + "abort: {status: 503, percent: 1}}"})
	}
	return out
}

func judgedFaults() []spec {
	var out []spec
	for _, says := range []string{
		"", "delay: {duration: 1s, percent: 10}", "delay: {duration: 1s}", "delay: {percent: 10}", "delay: {duration: 1s, percent: 10, perMille: 5}", "delay: {duration: 1s, perMille: 5}", "delay: {duration: 1s, percent: 101}", "delay: {duration: 1s, perMille: 1001}",
		"abort: {status: 503, percent: 100}", "abort: {percent: 100}", "abort: {status: 199, percent: 1}", "abort: {grpcStatus: 14, perMille: 1}", "abort: {grpcStatus: 17, percent: 1}", "abort: {status: 503}",
		"abort: {status: 503, percent: 1}, headers: [{name: x-test, value: 'yes'}]", "abort: {status: 503, percent: 1}, headers: [{name: x-test}]", "abort: {status: 503, percent: 1}, headers: [{name: 'x test', value: a}]",
		"abort: {status: 503, percent: 1}, headers: [{name: a, value: a}, {name: a, value: b}]", "abort: {status: 503, percent: 1}, headers: [{type: RegularExpression, name: a, value: 'a.*'}]", "abort: {status: 503, percent: 1}, headers: [{type: Glob, name: a, value: 'a*'}]",
	} {
		out = append(out, spec{"FaultPolicy", on("Service", says)})
	}
	for _, app := range []string{"http", "grpc", "kubernetes.io/h2c", "tcp", "HTTP", "redis"} {
		out = append(out, spec{"Service", "{networks: [{network: a}], ports: [{port: 80, appProtocol: " + app + "}], selector: {}}"})
	}
	return out
}
