package main

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestConfigurations: what Envoys and moired are given is YAML, and says as much
// as it should.
func TestConfigurations(t *testing.T) {
	b, err := envoyConfig("client", []hop{{Name: near, At: "127.0.0.1", Port: 1, To: "10.0.0.1", ToPort: "2", MakesTLS: true, Streams: true, Routes: []int{0, 1}}, {Name: "in", TakesTLS: true}})
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Static struct{ Listeners, Clusters []map[string]any } `json:"static_resources"`
	}
	if err := yaml.UnmarshalStrict(b, new(map[string]any)); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &c); err != nil || len(c.Static.Listeners) != 2 || len(c.Static.Clusters) != 2 || c.Static.Clusters[0]["transport_socket"] == nil || c.Static.Clusters[1]["transport_socket"] != nil {
		t.Errorf("%v %+v", err, c)
	}
	for _, intent := range []string{tenantIntent + "---\n" + plainIntent, tenantIntent + "---\n" + meshedIntent} {
		for _, part := range strings.Split(intent, "---\n") {
			if err := yaml.UnmarshalStrict([]byte(part), new(map[string]any)); err != nil {
				t.Error(err, part)
			}
		}
	}
}

// TestRatios are of the same round.
func TestRatios(t *testing.T) {
	mine := outcome{{Requests: 10, Proxy: 1}, {Requests: 40, Proxy: 2}, {Requests: 90, Proxy: 3}}
	its := outcome{{Requests: 10, Proxy: 2}, {Requests: 10, Proxy: 1}, {Requests: 10, Proxy: 1}}
	if got := mine.against(its, func(a, b result) float64 { return a.perCPU() / b.perCPU() }); got != 2 {
		t.Errorf("%v, not 2", got)
	}
	if got := mine.median(result.perCPU); got != 20 {
		t.Errorf("%v, not 20", got)
	}
}
