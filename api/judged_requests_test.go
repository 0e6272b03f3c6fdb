//go:build !race

package api_test

var judgedRequests = []spec{
	{"Domain", `{mtls: strict}`}, {"Domain", `{mtls: "on"}`}, {"Workload", `{mtls: permissive, interfaces: [{network: a}]}`}, {"Workload", `{mtls: tls, interfaces: [{network: a}]}`},
	{"Domain", `{authorizers: [{name: opa, project: p, service: s, port: 9191}]}`}, {"Domain", `{authorizers: [{name: opa, project: p, service: s}]}`}, {"Domain", `{authorizers: [{name: Opa, project: p, service: s, port: 1}]}`},
	{"Domain", `{authorizers: [{name: a, project: p, service: s, port: 1}, {name: a, project: p, service: s, port: 2}]}`}, {"Domain", `{authorizers: [{name: a, service: s, port: 1}]}`}, {"Domain", `{authorizers: [{name: a, project: p, port: 1}]}`},
	{"Domain", `{authorizers: [{name: a, project: p, service: s, port: 1, timeoutMilliseconds: 60001}]}`}, {"Domain", `{authorizers: [{name: a, project: p, service: s, port: 1, onFailure: open}]}`}, {"Domain", `{authorizers: [{name: a, project: p, service: s, port: 1, status: 200}]}`},
	{"Domain", `{authorizers: [{name: a, project: p, service: s, port: 1, onFailure: allow, status: 503, timeoutMilliseconds: 50}]}`},

	{"Policy", `{ingress: [{action: allow, http: [{}]}]}`}, {"Policy", `{ingress: [{action: allow, http: []}]}`}, {"Policy", `{ingress: [{action: allow, grpc: [{}]}]}`}, {"Policy", `{ingress: [{action: deny, grpc: []}]}`},
	{"Policy", `{ingress: [{action: allow, http: [{methods: [GET, POST], paths: [{prefix: /a}, {exact: /b}, {regex: "/c.*"}], hosts: [a.example.com, "*.b"], headers: [{name: X-A, exact: "1"}, {name: x-b, present: true, not: true}, {name: x-c, regex: "1|2"}]}]}]}`},
	{"Policy", `{ingress: [{action: allow, http: [{methods: [get]}]}]}`}, {"Policy", `{ingress: [{action: allow, http: [{methods: [GET, GET]}]}]}`}, {"Policy", `{ingress: [{action: allow, http: [{methods: [""]}]}]}`},
	{"Policy", `{ingress: [{action: allow, http: [{paths: [{}]}]}]}`}, {"Policy", `{ingress: [{action: allow, http: [{paths: [{exact: /a, prefix: /a}]}]}]}`}, {"Policy", `{ingress: [{action: allow, http: [{paths: [{prefix: a}]}]}]}`},
	{"Policy", `{ingress: [{action: allow, http: [{hosts: [A.example.com]}]}]}`}, {"Policy", `{ingress: [{action: allow, http: [{hosts: ["a.example.com:80"]}]}]}`}, {"Policy", `{ingress: [{action: allow, http: [{hosts: ["*"]}]}]}`}, {"Policy", `{ingress: [{action: allow, http: [{hosts: ["a.*.b"]}]}]}`},
	{"Policy", `{ingress: [{action: allow, http: [{headers: [{name: a}]}]}]}`}, {"Policy", `{ingress: [{action: allow, http: [{headers: [{name: a, present: false}]}]}]}`}, {"Policy", `{ingress: [{action: allow, http: [{headers: [{name: a, exact: "", regex: b}]}]}]}`},
	{"Policy", `{ingress: [{action: allow, http: [{headers: [{name: a, exact: ""}]}]}]}`}, {"Policy", `{ingress: [{action: allow, http: [{headers: [{exact: a}]}]}]}`}, {"Policy", `{ingress: [{action: allow, http: [{headers: [{name: "", exact: a}]}]}]}`},
	{"Policy", `{ingress: [{action: allow, grpc: [{service: shop.v1.Cart, method: Get, headers: [{name: tenant, exact: a}]}]}]}`}, {"Policy", `{ingress: [{action: allow, grpc: [{service: shop/Cart}]}]}`}, {"Policy", `{ingress: [{action: allow, grpc: [{method: a.b}]}]}`},
	{"Policy", `{ingress: [{action: allow, jwt: {issuer: "https://id", jwksURI: "https://id/keys", audiences: [a, b], claims: [{name: groups, exact: admin}]}}]}`}, {"Policy", `{ingress: [{action: allow, jwt: {issuer: i, jwks: "{\"keys\":[]}"}}]}`},
	{"Policy", `{ingress: [{action: allow, jwt: {issuer: i}}]}`}, {"Policy", `{ingress: [{action: allow, jwt: {issuer: i, jwks: "{\"keys\":[]}", jwksURI: "https://id/keys"}}]}`}, {"Policy", `{ingress: [{action: allow, jwt: {jwksURI: "https://id/keys"}}]}`},
	{"Policy", `{ingress: [{action: allow, jwt: {issuer: i, jwksURI: "http://id/keys"}}]}`}, {"Policy", `{ingress: [{action: allow, jwt: {issuer: i, jwksURI: "https://user@id/keys"}}]}`}, {"Policy", `{ingress: [{action: allow, jwt: {issuer: i, jwksURI: "https://id"}}]}`},
	{"Policy", `{ingress: [{action: allow, jwt: {issuer: i, jwksURI: "https://id/keys", audiences: [a, a]}}]}`}, {"Policy", `{ingress: [{action: allow, jwt: {issuer: i, jwksURI: "https://id/keys", audiences: [""]}}]}`}, {"Policy", `{ingress: [{action: allow, jwt: {issuer: "", jwksURI: "https://id/keys"}}]}`},
	{"Policy", `{ingress: [{action: allow, jwt: {issuer: i, jwksURI: "https://id/keys", claims: [{name: a}]}}]}`},
	{"Policy", `{ingress: [{action: allow, external: opa}]}`}, {"Policy", `{ingress: [{action: deny, external: opa}]}`}, {"Policy", `{tier: admin, ingress: [{action: accept, external: opa}]}`}, {"Policy", `{tier: admin, ingress: [{action: pass, external: opa}]}`}, {"Policy", `{ingress: [{action: allow, external: OPA}]}`},
	{"Policy", `{ingress: [{action: allow, http: [{}], ports: [{protocol: UDP, port: 53}]}]}`}, {"Policy", `{ingress: [{action: allow, http: [{}], ports: [{protocol: UDP, port: 53}, {port: 80}]}]}`}, {"Policy", `{ingress: [{action: allow, external: opa, ports: [{protocol: ICMP}]}]}`}, {"Policy", `{ingress: [{action: allow, http: [{}], ports: []}]}`},
	// Expressions that are none.
	{"Policy", `{ingress: [{action: allow, http: [{paths: [{regex: "("}]}]}]}`}, {"Policy", `{ingress: [{action: allow, http: [{headers: [{name: a, regex: "(?=a)"}]}]}]}`}, {"Policy", `{ingress: [{action: allow, jwt: {issuer: i, jwksURI: "https://id/keys", claims: [{name: a, regex: "["}]}}]}`},
}
