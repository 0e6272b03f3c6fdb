package wire

func goodMeshRows() map[string]*Row {
	key := func() *ServiceKey { return &ServiceKey{Addr: &Addr{Vni: 5, Address: ip4}, Protocol: 6, Port: 80} }
	return map[string]*Row{
		"trust":    {Row: &Row_Trust{&Trust{Name: "shop.example", TrustDomain: "shop.example", Roots: [][]byte{{1}, {2}}, Keys: []byte(`{"keys":[]}`), Federates: []string{"a", "b"}}}},
		"frontend": {Row: &Row_Frontend{&Frontend{Key: key(), Project: "shop", Service: "shop/web", Protocol: "http1", Routes: []string{"a", "b"}}}},
		"route":    {Row: &Row_Route{&Route{Name: "r", Json: []byte(`{"name":"r","rules":[{"backends":[{"cluster":"c"}]}]}`)}}},
		"cluster":  {Row: &Row_Cluster{&Cluster{Name: "c", Json: []byte(`{"name":"c","endpoints":null}`), Service: key()}}},
		"gateway":  {Row: &Row_Gateway{&Gateway{Project: "p", Name: "g", Json: []byte(`{"Project":"p","Name":"g","Attachment":{"Project":"p","Workload":"gateway-g","Network":"n"},"Listeners":[{"name":"a","address":":80"}]}`)}}},
		"key set":  {Row: &Row_KeySet{&KeySet{Uri: "https://x", Json: `{"keys":[]}`, Until: 7}}},
		"policy ":  {Row: &Row_Policy{&PolicySet{Vni: 6, Identity: 3, Rules: []*Rule{goodL7Rule()}}}}, // about requests
	}
}

func goodL7Rule() *Rule {
	return &Rule{Id: "a", Tier: 1, Action: 1, Requests: []*RequestMatch{{
		Methods: []string{"GET"}, Paths: []*TextMatch{{Kind: 1, Value: "/a"}}, Hosts: []*TextMatch{{Value: "a"}},
		Headers: []*NamedMatch{{Name: "x-a", Match: &TextMatch{Value: "1"}}}, Grpc: []*Call{{Service: "s"}},
		Token: &Token{Issuer: "i", Keys: "https://x"}, External: &Asked{Cluster: "ask"},
	}}}
}

// inRule changes a rule about requests.
func inRule(change func(*Rule, *RequestMatch)) func(*Row) {
	return func(r *Row) {
		rule := goodL7Rule()
		change(rule, rule.Requests[0])
		r.GetPolicy().Rules = []*Rule{rule}
	}
}

func badMeshRows() []badRow {
	return []badRow{
		{"endpoint", func(r *Row) { r.GetEndpoint().Mode = 3 }, "(endpoint 5/10.0.0.1): field mode: 3 is no mode; there are 0 to 2"},
		{"service", func(r *Row) { r.GetService().App = "http7" }, `(service {5/10.0.0.1 6 80}): field app: "http7" is no protocol`},
		{"trust", func(r *Row) { r.GetTrust().Name = "" }, "(trust): field name: empty"},
		{"trust", func(r *Row) { r.GetTrust().Roots = [][]byte{{2}, {1}} }, "(trust shop.example): field roots: entry 1 ([1]) does not come after the one before it ([2])"},
		{"trust", func(r *Row) { r.GetTrust().Roots = [][]byte{{}} }, "(trust shop.example): field roots: a certificate of 0 bytes; want 1 to 16384"},
		{"trust", func(r *Row) { r.GetTrust().Roots = make([][]byte, 17) }, "(trust shop.example): field roots: 17 entries; at most 16"},
		{"trust", func(r *Row) { r.GetTrust().Keys = []byte("{") }, "(trust shop.example): field keys: not a JWK set"},
		{"trust", func(r *Row) { r.GetTrust().Federates = []string{"b", "a"} }, "(trust shop.example): field federates: entry 1 (a) does not come after the one before it (b)"},
		{"frontend", func(r *Row) { r.GetFrontend().Key = nil }, "(frontend): field key.addr.vni: network id 0 is not within 1 to 16777215"},
		{"frontend", func(r *Row) { r.GetFrontend().Protocol = "spdy" }, `(frontend {{5/10.0.0.1 6 80} shop}): field protocol: "spdy" is no protocol`},
		{"frontend", func(r *Row) { r.GetFrontend().Routes[0] = "b" }, "(frontend {{5/10.0.0.1 6 80} shop}): field routes: entry 1 (b) does not come after the one before it (b)"},
		{"route", func(r *Row) { r.GetRoute().Name = "" }, "(route): field name: empty"},
		{"route", func(r *Row) { r.GetRoute().Json = nil }, "(route r): field json: EOF"},
		{"route", func(r *Row) { r.GetRoute().Json = []byte(`{"name":"q","rules":[{}]}`) }, `(route r): field json.name: "q", but the row is that of "r"`},
		{"route", func(r *Row) { r.GetRoute().Json = []byte(`{"name":"r","rulez":[{}]}`) }, `(route r): field json: json: unknown field "rulez"`},
		{"route", func(r *Row) { r.GetRoute().Json = []byte(`{"name":"r","rules":[{}]}{}`) }, `(route r): field json: something follows the value`},
		{"route", func(r *Row) { r.GetRoute().Json = []byte(`{"name":"r"}`) }, "(route r): field json: route.rules: there is no rule; write at least one with backends"},
		{"cluster", func(r *Row) { r.GetCluster().Name = "" }, "(cluster): field name: empty"},
		{"cluster", func(r *Row) { r.GetCluster().Service = &ServiceKey{} }, "(cluster c): field service.addr.vni: network id 0 is not within 1 to 16777215"},
		{"cluster", func(r *Row) { r.GetCluster().Json = []byte(`{"name":"c","proxyProtocol":3}`) }, "(cluster c): field json: cluster.proxyProtocol: 3 is out of range; write a number from 0 to 2"},
		{"cluster", func(r *Row) { r.GetCluster().Json = []byte(`{"name":"c","endpoints":[{"address":"10.0.0.1:80"}]}`) }, "(cluster c): field json.endpoints: 1 of them; they are the backends of the service"},
		{"gateway", func(r *Row) { r.GetGateway().Name = "h" }, `(gateway {p h}): field json.name: "g", but the row is that of "h"`},
		{"gateway", func(r *Row) { r.GetGateway().Json = []byte(`{"Project":"p","Name":"g","Attachment":{"Project":"q"}}`) }, `(gateway {p g}): field json.attachment.project: "q", but the row is that of "p"`},
		{"gateway", func(r *Row) {
			r.GetGateway().Json = []byte(`{"Project":"p","Name":"g","Attachment":{"Project":"p"},"Listeners":[{"name":"a","address":"x"}]}`)
		}, `(gateway {p g}): field json: listeners[0].address: "x" is not an IP address with a port; write for example 127.0.0.1:8080, [::1]:8080 or 0.0.0.0:80`},
		{"key set", func(r *Row) { r.GetKeySet().Uri = "" }, "(key set): field uri: empty"},
		{"key set", func(r *Row) { r.GetKeySet().Json = "x" }, "(key set https://x): field json: not a JWK set"},
		{"key set", func(r *Row) { r.GetKeySet().Until = -1 }, "(key set https://x): field until: -1 is before 1970"},
		{"policy", inRule(func(_ *Rule, m *RequestMatch) { m.Methods = []string{""} }), "(policy {5 3 ingress}): field rules.requests.methods: empty"},
		{"policy", inRule(func(_ *Rule, m *RequestMatch) { m.Paths[0].Kind = 2 }), "(policy {5 3 ingress}): field rules.requests.paths.kind: 2 is none that there is here"},
		{"policy", inRule(func(_ *Rule, m *RequestMatch) { m.Paths[0].Kind = 256 }), "(policy {5 3 ingress}): field rules.requests.paths.kind: 256 is none that there is here"},
		{"policy", inRule(func(_ *Rule, m *RequestMatch) { m.Paths[0] = &TextMatch{Kind: 4, Value: "("} }),
			"(policy {5 3 ingress}): field rules.requests.paths.value: error parsing regexp: missing closing ): `^(?:()$`"},
		{"policy", inRule(func(_ *Rule, m *RequestMatch) { m.Hosts[0].Kind = 4 }), "(policy {5 3 ingress}): field rules.requests.hosts.kind: 4 is none that there is here"},
		{"policy", inRule(func(_ *Rule, m *RequestMatch) { m.Headers[0].Name = "X-A" }), "(policy {5 3 ingress}): field rules.requests.headers: X-A is not in lower case, and no header is compared with it"},
		{"policy", inRule(func(_ *Rule, m *RequestMatch) { m.Headers[0].Match = &TextMatch{Kind: 1} }), "(policy {5 3 ingress}): field rules.requests.headers.kind: 1 is none that there is here"},
		{"policy", inRule(func(_ *Rule, m *RequestMatch) { m.Grpc[0].Service = "a\n" }), "(policy {5 3 ingress}): field rules.requests.grpc.service: control character 0x0a"},
		{"policy", inRule(func(_ *Rule, m *RequestMatch) { m.Token.Issuer = "" }), "(policy {5 3 ingress}): field rules.requests.token: without issuer or keys any token would do"},
		{"policy", inRule(func(r *Rule, _ *RequestMatch) { r.Action = 0 }),
			"(policy {5 3 ingress}): field rules.requests.external: set in a rule that does not allow"},
		{"policy", inRule(func(_ *Rule, m *RequestMatch) { m.External.Cluster = "" }), "(policy {5 3 ingress}): field rules.requests.external.cluster: empty"},
		{"policy", inRule(func(_ *Rule, m *RequestMatch) { m.External.Status = 200 }), "(policy {5 3 ingress}): field rules.requests.external.status: 200 is no status of an error; there are 400 to 599"},
	}
}
