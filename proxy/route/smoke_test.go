package route

import (
	"testing"

	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/l7"
)

func TestSmoke(t *testing.T) {
	cfg := &l7.Config{Listeners: []l7.Listener{{Name: "web", Address: "127.0.0.1:80"}},
		Clusters: []l7.Cluster{{Name: "a"}},
		Routes:   []l7.Route{{Name: "r", Hostnames: []string{"*.example.com"}, Rules: []l7.Rule{{Matches: []l7.Match{{Path: &l7.PathMatch{Kind: l7.Prefix, Value: "/x"}}}, Backends: []l7.Backend{{Cluster: "a"}}}}}}}
	tab, err := Build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h := &message.Head{Method: []byte("GET"), Authority: []byte("Foo.Example.com:80"), Path: []byte("/a/../x//y?z=1")}
	f := tab.Match(0, h, &Scratch{}, &Arena{})
	if f.Rule == nil || string(h.Path) != "/x/y?z=1" || f.Prefix != 2 {
		t.Fatal(f, string(h.Path))
	}
}
