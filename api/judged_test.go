//go:build !race

package api_test

var judgedLinks = []spec{
	{"Link", `{ends: [{network: a}, {network: b}]}`}, {"Link", `{ends: [{network: a}]}`}, {"Link", `{}`}, {"Link", `{ends: [{network: a}, {network: b}, {network: c}]}`},
	{"Link", `{ends: [{network: a}, {project: p}]}`}, {"Link", `{ends: [{network: a}, {project: p, network: a}], onFailure: bypass}`}, {"Link", `{ends: [{network: a}, {network: b}], onFailure: open}`},
	{"Link", `{ends: [{network: a, translate: [{prefix: 10.0.0.0/24, as: 100.64.0.0/24}]}, {network: b}]}`}, {"Link", `{ends: [{network: a, translate: [{prefix: 10.0.0.0/24, as: 100.64.0.0/25}]}, {network: b}]}`},
	{"Link", `{ends: [{network: a, translate: [{prefix: 10.0.0.0/24, as: "fd00::/24"}]}, {network: b}]}`}, {"Link", `{ends: [{network: a, translate: [{prefix: 10.0.0.1/24, as: 100.64.0.0/24}]}, {network: b}]}`},
	{"Link", `{ends: [{network: a, translate: [{prefix: 10.0.0.0/24}]}, {network: b}]}`}, {"Link", `{ends: [{network: a, translate: [{prefix: x, as: y}]}, {network: b}]}`},
	{"Link", `{ends: [{network: a}, {network: b}], via: [{name: fw, workloads: {matchLabels: {app: fw}}}]}`}, {"Link", `{ends: [{network: a}, {network: b}], via: [{name: fw, workloads: {}}]}`}, {"Link", `{ends: [{network: a}, {network: b}], via: [{name: fw}]}`},
	{"Link", `{ends: [{network: a}, {network: b}], via: [{name: Fw, workloads: {matchLabels: {app: fw}}}]}`}, {"Link", `{ends: [{network: a}, {network: b}], via: [{workloads: {matchLabels: {app: fw}}}]}`},
	{"Link", `{ends: [{network: a}, {network: b}], via: [{name: fw, workloads: {matchLabels: {app: fw}}, mode: bridge}]}`}, {"Link", `{ends: [{network: a}, {network: b}], via: [{name: fw, workloads: {matchExpressions: [{key: app, operator: Exists}]}, mode: nat}]}`},
	{"Link", `{ends: [{network: a}, {network: b}], via: [{name: fw, right: m, workloads: {matchLabels: {a: b}}}, {name: fw, workloads: {matchLabels: {a: c}}}]}`},
	{"Link", `{ends: [{network: a}, {network: b}], via: [{name: fw, right: m, workloads: {matchLabels: {a: b}}}, {name: ids, left: p/m, workloads: {matchLabels: {a: c}}, health: {port: 80}}]}`},
	{"Link", `{ends: [{network: a, translate: [{prefix: 10.0.0.0/24, as: 100.64.0.0/24}]}, {network: b}], via: [{name: fw, workloads: {matchLabels: {app: fw}}}]}`},
	{"Link", `{ends: [{network: a}, {network: b}], via: [{name: fw, workloads: {matchLabels: {app: fw}}, health: {}}]}`}, {"Link", `{ends: [{network: a}, {network: b}], via: [{name: fw, workloads: {matchLabels: {app: fw}}, health: {type: icmp}}]}`},
	{"Link", `{ends: [{network: a}, {network: b}], via: [{name: fw, workloads: {matchLabels: {app: fw}}, health: {type: ping}}]}`}, {"Link", `{ends: [{network: a}, {network: b}], via: [{name: fw, workloads: {matchLabels: {app: fw}}, health: {type: http, port: 70000}}]}`},
	{"Link", `{ends: [{network: a}, {network: b}], via: [{name: fw, workloads: {matchLabels: {app: fw}}, health: {type: http, port: 80, path: /ok, intervalSeconds: 3601}}]}`},
	{"Link", `{ends: [{network: a}, {network: b}], via: [{name: fw, workloads: {matchLabels: {app: fw}}, health: {port: 80, timeoutSeconds: 61}}]}`}, {"Link", `{ends: [{network: a}, {network: b}], via: [{name: fw, workloads: {matchLabels: {app: fw}}, health: {port: 80, failures: 101}}]}`},
	{"Link", `{ends: [{network: a}, {network: b}], via: [{name: fw, workloads: {matchLabels: {app: fw}}, health: {port: 80, successes: -1}}]}`},
}

var judgedServices = []spec{
	{"Service", `{networks: [{network: a}], ports: [{port: 80}], selector: {}}`}, {"Service", `{networks: [{network: a}], ports: [{port: 80}]}`}, {"Service", `{networks: [{network: a}], ports: [{port: 80}], selector: {}, externalName: a.b}`},
	{"Service", `{networks: [{network: a}], ports: [{port: 80}], endpoints: []}`}, {"Service", `{networks: [{network: a}], ports: [{port: 80}], endpoints: [{address: 192.0.2.1}]}`}, {"Service", `{networks: [{network: a}], ports: [{port: 80}], endpoints: [{address: 192.0.2.1/32}]}`},
	{"Service", `{networks: [{network: a}], ports: [{port: 80}], endpoints: [{address: "2001:db8::1", weight: 1001}]}`}, {"Service", `{networks: [{network: a}], ports: [{port: 80}], endpoints: [{}]}`}, {"Service", `{networks: [{network: a}], ports: [{port: 80}], endpoints: [{address: 192.0.2.1, weight: 5, zone: z}]}`},
	{"Service", `{networks: [], ports: [{port: 80}], selector: {}}`}, {"Service", `{ports: [{port: 80}], selector: {}}`}, {"Service", `{networks: [{network: a}, {network: a}], ports: [{port: 80}], selector: {}}`}, {"Service", `{networks: [{}], ports: [{port: 80}], selector: {}}`},
	{"Service", `{networks: [{network: a, addresses: [10.0.0.1, "fd00::1"]}], ports: [{port: 80}], selector: {}}`}, {"Service", `{networks: [{network: a, addresses: [10.0.0.1, 10.0.0.2]}], ports: [{port: 80}], selector: {}}`}, {"Service", `{networks: [{network: a, addresses: [x]}], ports: [{port: 80}], selector: {}}`},
	{"Service", `{networks: [{network: a, addresses: [10.0.0.1, "fd00::1", 10.0.0.2]}], ports: [{port: 80}], selector: {}}`},
	{"Service", `{networks: [{network: a}], ports: [], selector: {}}`}, {"Service", `{networks: [{network: a}], selector: {}}`}, {"Service", `{networks: [{network: a}], ports: [{port: 80}, {port: 80, protocol: UDP}], selector: {}}`}, {"Service", `{networks: [{network: a}], ports: [{port: 80}, {port: 80, protocol: TCP}], selector: {}}`},
	{"Service", `{networks: [{network: a}], ports: [{port: 65536}], selector: {}}`}, {"Service", `{networks: [{network: a}], ports: [{name: http}], selector: {}}`}, {"Service", `{networks: [{network: a}], ports: [{name: HTTP, port: 80}], selector: {}}`}, {"Service", `{networks: [{network: a}], ports: [{protocol: ICMP, port: 80}], selector: {}}`},
	{"Service", `{networks: [{network: a}], ports: [{port: 80, targetPort: 8080}], selector: {}}`}, {"Service", `{networks: [{network: a}], ports: [{port: 80, targetPort: 80800}], selector: {}}`}, {"Service", `{networks: [{network: a}], ports: [{name: a, port: 80}, {name: a, port: 81}], selector: {}}`},
	{"Service", `{networks: [{network: a}], ports: [{port: 80}], externalName: db.example.com.}`}, {"Service", `{networks: [{network: a}], ports: [{port: 80}], externalName: "db example"}`}, {"Service", `{networks: [{network: a}], ports: [{port: 80}], externalName: "*.example.com"}`},
	{"Service", `{networks: [{network: a}], ports: [{port: 80}], selector: {}, affinitySeconds: 86401}`}, {"Service", `{networks: [{network: a}], ports: [{port: 80}], selector: {}, affinitySeconds: 0}`}, {"Service", `{networks: [{network: a}], ports: [{port: 80}], selector: {}, locality: rack}`},
	{"Service", `{networks: [{network: a}], ports: [{port: 80}], selector: {}, locality: zone, drain: [web-1, 10.0.0.1]}`}, {"Service", `{networks: [{network: a}], ports: [{port: 80}], selector: {}, drain: [a, a]}`}, {"Service", `{networks: [{network: a}], ports: [{port: 80}], selector: {}, health: {type: http}}`},
	{"Service", `{networks: [{network: a}], ports: [{port: 80}], selector: {}, health: {type: http, port: 80}}`},

	{"FloatingIP", `{pool: {network: out}}`}, {"FloatingIP", `{}`}, {"FloatingIP", `{pool: {project: p}}`}, {"FloatingIP", `{pool: {network: out}, address: 192.0.2.7}`}, {"FloatingIP", `{pool: {network: out}, address: 192.0.2.0/24}`},
	{"FloatingIP", `{pool: {network: out}, targets: [{workload: a}]}`}, {"FloatingIP", `{pool: {network: out}, targets: [{workload: a, weight: 0}, {workload: b, weight: 1000}]}`}, {"FloatingIP", `{pool: {network: out}, targets: [{weight: 1}]}`}, {"FloatingIP", `{pool: {network: out}, targets: [{workload: a, weight: 1001}]}`},
	{"FloatingIP", `{pool: {network: out}, ports: [{port: 80, targetPort: 8080}]}`}, {"FloatingIP", `{pool: {network: out}, ports: [{port: 80}, {port: 80}]}`}, {"FloatingIP", `{pool: {network: out}, ports: [{port: 0}]}`},
	{"FloatingIP", `{pool: {network: out}, names: [a.example.com]}`}, {"FloatingIP", `{pool: {network: out}, names: [a, a]}`}, {"FloatingIP", `{pool: {network: out}, names: ["a b"]}`},
}

var judgedOutside = []spec{
	{"Network", `{prefixes: [10.0.0.0/24], outside: {}}`}, {"Network", `{prefixes: [10.0.0.0/24], outside: {mode: gateway}}`}, {"Network", `{prefixes: [10.0.0.0/24], outside: {mode: nat}}`}, {"Network", `{prefixes: [10.0.0.0/24], outside: {gateways: [n1], addresses: [192.0.2.1]}}`},
	{"Network", `{prefixes: [10.0.0.0/24], outside: {mode: gateway, gateways: [n1], addresses: [192.0.2.1, "2001:db8::1"]}}`}, {"Network", `{prefixes: [10.0.0.0/24], outside: {mode: gateway, gateways: [n1], addresses: [192.0.2.1, 192.0.2.2]}}`},
	{"Network", `{prefixes: [10.0.0.0/24], outside: {mode: gateway, gateways: [], addresses: [192.0.2.1]}}`}, {"Network", `{prefixes: [10.0.0.0/24], outside: {mode: gateway, gateways: [n1], addresses: [x]}}`},
	{"Network", `{prefixes: [10.0.0.0/24], outside: {hosts: [{port: 53}, {protocol: UDP, port: 53}]}}`}, {"Network", `{prefixes: [10.0.0.0/24], outside: {hosts: [{protocol: ICMP, port: 53}]}}`},
	{"Network", `{prefixes: [10.0.0.0/24], external: true, floating: [10.0.0.5-10.0.0.9]}`}, {"Network", `{prefixes: [10.0.0.0/24], floating: [x]}`}, {"Network", `{prefixes: [10.0.0.0/24], services: [10.0.0.128/25]}`}, {"Network", `{prefixes: [10.0.0.0/24], services: ["1-2-3"]}`},
	{"Network", `{prefixes: [10.0.0.0/24], consents: [{project: p}]}`}, {"Network", `{prefixes: [10.0.0.0/24], consents: [{}]}`}, {"Network", `{prefixes: [10.0.0.0/24], consents: [{project: "*", domain: d, for: [floatingIP, attach]}]}`}, {"Network", `{prefixes: [10.0.0.0/24], consents: [{project: p, for: [talk]}]}`},
	{"Network", `{prefixes: [10.0.0.0/24], consents: [{project: p, for: [link, link]}]}`}, {"Network", `{prefixes: [10.0.0.0/24], metadata: "http://192.0.2.1:8775"}`}, {"Network", `{prefixes: [10.0.0.0/24], metadata: "192.0.2.1:8775"}`},
	{"Network", `{prefixes: [10.0.0.0/24], limit: {egress: 100M, ingress: 1.5G}}`}, {"Network", `{prefixes: [10.0.0.0/24], limit: {egress: 100 Mbit}}`}, {"Network", `{prefixes: [10.0.0.0/24], limit: {ingress: .5G}}`},
	{"Network", `{prefixes: [10.0.0.0/24], dns: {zone: corp.example, search: [example.com], ttlSeconds: 60, order: fixed, noForward: true}}`}, {"Network", `{prefixes: [10.0.0.0/24], dns: {zone: Corp.}}`}, {"Network", `{prefixes: [10.0.0.0/24], dns: {order: sorted}}`},
	{"Network", `{prefixes: [10.0.0.0/24], dns: {ttlSeconds: 86401}}`}, {"Network", `{prefixes: [10.0.0.0/24], dns: {records: [{name: www, type: A, data: 10.0.0.9}]}}`}, {"Network", `{prefixes: [10.0.0.0/24], dns: {records: [{name: www, type: HINFO, data: x}]}}`},
	{"Network", `{prefixes: [10.0.0.0/24], dns: {records: [{type: A, data: 10.0.0.9}]}}`}, {"Network", `{prefixes: [10.0.0.0/24], dns: {delegations: [{zone: a.b, servers: [192.0.2.53]}]}}`}, {"Network", `{prefixes: [10.0.0.0/24], dns: {delegations: [{zone: a.b, servers: []}]}}`},
	{"Network", `{prefixes: [10.0.0.0/24], dns: {delegations: [{zone: a.b, servers: [192.0.2.53]}, {zone: a.b, servers: [192.0.2.54]}]}}`}, {"Network", `{prefixes: [10.0.0.0/24], dns: {forward: ["192.0.2.53:5353", "2001:db8::1"]}}`},

	{"Workload", `{interfaces: [{network: a, limit: {egress: 10M}}]}`}, {"Workload", `{interfaces: [{network: a, limit: {egress: x}}]}`}, {"Workload", `{interfaces: [{network: other/a}]}`},

	{"Node", `{address: 192.0.2.1, zone: z, firewall: {}}`}, {"Node", `{address: 192.0.2.1, firewall: {mode: on}}`}, {"Node", `{address: 192.0.2.1, firewall: {mode: enforce, allow: [{name: ssh, from: [192.0.2.0/24], ports: [{port: 22}]}]}}`},
	{"Node", `{address: 192.0.2.1, firewall: {allow: [{from: [x]}]}}`}, {"Node", `{address: 192.0.2.1, firewall: {allow: [{name: SSH}]}}`}, {"Node", `{address: 192.0.2.1, firewall: {mode: audit, allow: [{ports: [{protocol: ICMP, port: 1}]}]}}`},

	{"Policy", `{egress: [{action: allow, to: [{name: api.example.com}, {name: "*.example.com"}, {service: db, project: p}]}]}`}, {"Policy", `{egress: [{action: allow, to: [{name: "*.*.com"}]}]}`}, {"Policy", `{egress: [{action: allow, to: [{name: a.b, cidr: 10.0.0.0/24}]}]}`},
	{"Policy", `{egress: [{action: allow, to: [{name: a.b, project: p}]}]}`}, {"Policy", `{egress: [{action: allow, to: [{service: db, network: n}]}]}`}, {"Policy", `{egress: [{action: allow, to: [{service: db, labels: {}}]}]}`}, {"Policy", `{ingress: [{action: allow, from: [{service: db}]}]}`},
	{"Policy", `{ingress: [{action: allow, from: [{name: a.b}]}]}`}, {"Policy", `{ingress: [{action: allow, matchEqual: [environment], from: [{labels: {}}]}]}`}, {"Policy", `{ingress: [{action: allow, matchEqual: [a, a]}]}`},
}
