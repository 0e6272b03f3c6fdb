package l7

import (
	"math"
	"slices"
	"strings"
	"testing"
)

// valid is a Config with nothing wrong, to be spoilt.
func valid() *Config {
	return &Config{
		Name:      "edge",
		Listeners: []Listener{{Name: "web", Address: "127.0.0.1:8080"}, {Name: "raw", Address: "127.0.0.1:5432", Protocol: TCP}},
		Routes: []Route{
			{Name: "shop", Rules: []Rule{{Matches: []Match{{Path: &PathMatch{Kind: Prefix, Value: "/shop"}}}, Backends: []Backend{{Cluster: "shop"}}}}},
			{Name: "db", Kind: TCPRoute, Rules: []Rule{{Backends: []Backend{{Cluster: "db"}}}}},
		},
		Clusters: []Cluster{{Name: "shop", Endpoints: []Endpoint{{Address: "127.0.0.1:9000"}}}, {Name: "db", Protocol: TCP}},
	}
}

// TestValidate spoils one thing at a time. What each is told is in the golden
// files of proxy/config, which reads files and shows it with lines.
func TestValidate(t *testing.T) {
	if p := valid().Validate(); len(p) > 0 {
		t.Fatalf("a valid configuration: %v", p)
	}
	rule := func(c *Config) *Rule { return &c.Routes[0].Rules[0] }
	for _, c := range []struct {
		spoil func(*Config)
		field string
		soft  bool
	}{
		{func(c *Config) { c.Name = "" }, "name", false},
		{func(c *Config) { c.Listeners[0].Address = "localhost:80" }, "listeners[0].address", false},
		{func(c *Config) { c.Listeners[0].TLS = &ServerTLS{Certificates: []string{"none"}} }, "listeners[0].tls.certificates[0]", false},
		{func(c *Config) { c.Routes[0].Listeners = []string{"gone"} }, "routes[0].listeners[0]", false},
		{func(c *Config) { c.Routes[0].Listeners = []string{"raw"} }, "routes[0].listeners[0]", true},
		{func(c *Config) { rule(c).Backends[0].Cluster = "gone" }, "routes[0].rules[0].backends[0].cluster", true},
		{func(c *Config) { rule(c).Filters = []Filter{{Mirror: &Mirror{Cluster: "gone"}}} }, "routes[0].rules[0].filters[0].mirror.cluster", true},
		{func(c *Config) {
			c.Routes = append(c.Routes, Route{Name: "a", Kind: GRPCRoute, Rules: []Rule{{}}})
		}, "routes[0].hostnames", true},
		{func(c *Config) {
			rule(c).Filters = []Filter{{RequestHeaders: &HeaderChange{Remove: []string{"Host"}}}}
		}, "routes[0].rules[0].filters[0].requestHeaders.remove[0]", false},
		{func(c *Config) { rule(c).Matches[0].Path = &PathMatch{Kind: Regex, Value: "a)|(b"} }, "routes[0].rules[0].matches[0].path.value", false},
		{func(c *Config) { rule(c).Matches[0].Path.Value = strings.Repeat("/a", 64) }, "routes[0].rules[0].matches[0].path.value", false},
		{func(c *Config) { c.Clusters[0].Budget.Percent = math.NaN() }, "clusters[0].retryBudget.percent", false},
		{func(c *Config) { c.Clusters[0].Outlier = &Outlier{LatencyFactor: math.NaN()} }, "clusters[0].outlier.latencyFactor", false},
		{func(c *Config) { c.Telemetry.Tracing = &Tracing{Sample: math.Inf(1)} }, "telemetry.tracing.sample", false},
		{func(c *Config) { c.Clusters[0].TLS = &ClientTLS{CAFile: "ca.pem"} }, "clusters[0].tls.caFile", false},
	} {
		cfg := valid()
		c.spoil(cfg)
		got := cfg.Validate()
		if len(got) != 1 || got[0].Field != c.field || got[0].Soft != c.soft || got[0].Fix == "" {
			t.Errorf("want one problem at %s (soft: %v), got %v", c.field, c.soft, got)
		}
	}
}

// TestNoKeyIsShown: what is pasted into the wrong place is not repeated.
func TestNoKeyIsShown(t *testing.T) {
	const key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n-----END PRIVATE KEY-----\n"
	cfg := valid()
	cfg.Listeners[0].Address, cfg.Listeners[0].Hostname = key, key
	cfg.Routes[0].Listeners = []string{key}
	cfg.Routes[0].Hostnames = []string{key}
	cfg.Routes[0].Rules[0].Matches = []Match{{Path: &PathMatch{Value: key}, Method: key, Headers: []ValueMatch{{Name: key, Value: key}, {Kind: Regex, Name: "a", Value: key + "["}}}}
	cfg.Routes[0].Rules[0].Filters = []Filter{{CORS: &CORS{AllowOrigins: []string{key}}}, {Rewrite: &Rewrite{Hostname: key}}}
	cfg.Clusters[0].Endpoints = []Endpoint{{Address: ":" + key}, {Address: key}}
	cfg.Clusters[0].Check = &Check{Kind: "http", Path: key, Host: key}
	cfg.Routes[0].Rules[0].Backends[0].Cluster = key
	cfg.Clusters[0].TLS = &ClientTLS{ServerName: key, Servers: []string{key}, MinVersion: key, Certificate: key}
	cfg.Certificates = []Certificate{{Name: key, Chain: key, Key: key, KeyFile: key}}
	for _, p := range cfg.Validate() {
		if strings.Contains(strings.ToLower(p.Error()), "mighag") {
			t.Errorf("%s shows a key", p.Field)
		}
	}
}

func TestAttachments(t *testing.T) {
	c := valid()
	c.Routes = append(c.Routes, Route{Name: "aged", Created: -1, Rules: []Rule{{}}}, Route{Name: "calls", Kind: GRPCRoute, Listeners: []string{"web"}, Rules: []Rule{{}}})
	var got []string
	for _, a := range c.Attachments() {
		s := c.Routes[a.Route].Name + "@" + c.Listeners[a.Listener].Name
		if a.Other >= 0 {
			s += "!" + c.Routes[a.Other].Name
		}
		got = append(got, s)
	}
	if want := []string{"aged@web", "calls@web!aged", "db@raw", "shop@web"}; !slices.Equal(got, want) {
		t.Errorf("attached %v, want %v", got, want)
	}
}
