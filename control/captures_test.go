package control

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
	"moire.dev/moire/discovery"
	"moire.dev/moire/snapshot"
)

const capturesPath = "/apis/moire.dev/v1alpha1/namespaces/shop/captures"

func netWith(project, name string, vni int32) (compile.Key, *v1alpha1.Network) {
	n := aNetwork(project, name)
	n.Status.VNI = vni
	return compile.Key{Project: project, Name: name}, n
}

// captureFacts: shop has Networks 100 and 101, bank 200, which is linked with
// 100, others 300 and 301 between them.
func captureFacts() *facts {
	in := &compile.Input{Networks: map[compile.Key]*v1alpha1.Network{}, Reports: map[string]*snapshot.Report{}}
	for _, n := range []struct {
		project, name string
		vni           int32
	}{{"shop", "front", 100}, {"shop", "back", 101}, {"shop", "new", 0}, {"bank", "core", 200}, {"other", "a", 300}, {"other", "b", 301}, {"mid", "dle", 400}} {
		k, o := netWith(n.project, n.name, n.vni)
		in.Networks[k] = o
	}
	in.Links = map[compile.Key]*v1alpha1.Link{
		{Project: "bank", Name: "l"}:  {Spec: v1alpha1.LinkSpec{Ends: []v1alpha1.LinkEnd{{Project: "shop", Network: "front"}, {Network: "core"}}, Via: []v1alpha1.Function{{Right: "mid/dle"}}}},
		{Project: "other", Name: "l"}: {Spec: v1alpha1.LinkSpec{Ends: []v1alpha1.LinkEnd{{Network: "a"}, {Network: "b"}}}},
	}
	in.Reports["n1"] = &snapshot.Report{Attachments: []snapshot.Attachment{{AttachmentKey: snapshot.AttachmentKey{Project: "shop", Workload: "web", Network: "front"},
		VNI: 100, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")}}}}
	db := snapshot.Addr{VNI: 100, IP: netip.MustParseAddr("10.0.0.9")}
	return &facts{in: in, snaps: map[string]*snapshot.Snapshot{"n1": {Node: "n1", Networks: map[snapshot.VNI]snapshot.Network{100: {}},
		Endpoints: map[snapshot.Addr]snapshot.Endpoint{db: {Addr: db, Project: "shop", Workload: "db"}}}}}
}

func TestWhatACaptureMaySee(t *testing.T) {
	f := captureFacts()
	for _, tt := range []struct {
		project, sees string
		want          []snapshot.VNI
	}{
		{"shop", "", []snapshot.VNI{100, 101}}, {"shop", "bank", []snapshot.VNI{100, 101, 200}}, {"shop", "other", []snapshot.VNI{100, 101}}, {"shop", "mid", []snapshot.VNI{100, 101, 400}},
		{"bank", "", []snapshot.VNI{200}}, {"nobody", "bank", nil}, {"", "", []snapshot.VNI{100, 101, 200, 300, 301, 400, snapshot.Outside}},
	} {
		got := visible(f.in, tt.project, func(p string) bool { return p == tt.sees })
		if !slices.Equal(got, tt.want) {
			t.Errorf("%q seeing %q: got %v, want %v", tt.project, tt.sees, got, tt.want)
		}
	}
}

func TestCaptureParameters(t *testing.T) {
	f := captureFacts()
	nobody := func(string) bool { return false }
	read := func(query string) (snapshot.Capture, int, error) {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		return captureOf(q, f, "shop", nobody)
	}
	for query, want := range map[string]string{
		"seconds=61": "from 1 to 60", "packets=100001": "from 1 to 100000", "length=3": "from 14", "port=0": "from 1 to 65535", "protocol=gre": "not known",
		"verdict=maybe": "allow or deny", "peer=ten": "not an address", "trace=1": "needs from", "trace=1&from=nobody&to=10.0.0.9&port=1": "not attached",
		"trace=1&from=web&to=10.0.0.9": "needs port", "trace=1&from=web&to=ghost&port=1": "neither an address", "trace=1&from=bank/web&to=10.0.0.9&port=1": "another project",
	} {
		if _, _, err := read(query); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", query, err, want)
		}
	}
	c, seconds, err := read("")
	if err != nil || seconds != defaultTime || c.Packets != defaultPackets || c.Length != defaultLength || c.Trace || !slices.Equal(c.VNIs, []snapshot.VNI{100, 101}) {
		t.Errorf("got %+v, %d, %v", c, seconds, err)
	}
	c, _, err = read("workload=web&peer=10.0.0.9&protocol=TCP&port=80&verdict=deny&rule=x&packets=5")
	if err != nil || c.Workload != "shop/web" || c.A.String() != "10.0.0.9" || c.Protocol != 6 || c.Port != 80 || c.Packets != 5 {
		t.Errorf("got %+v, %v", c, err)
	}
	c, _, err = read("trace=1&probe=1&from=web&to=db&port=5432")
	if err != nil || !c.Trace || c.Probe.Source.IP.String() != "10.0.0.5" || c.Probe.Destination.IP.String() != "10.0.0.9" || c.Probe.Port != 5432 || c.Port != c.Probe.SourcePort || c.Port < 49152 || c.A.IsValid() {
		t.Errorf("got %+v, %v", c, err)
	}
	if c, _, err = read("trace=1&from=web&to=fd00::9&protocol=icmp"); err != nil || c.Protocol != 58 || c.A.String() != "fd00::5" || c.B.String() != "fd00::9" || c.Probe.Source.IP.IsValid() {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestPublisher(t *testing.T) {
	out := map[string]*snapshot.Snapshot{}
	p := newPublisher(func(node string, s *snapshot.Snapshot) { out[node] = s })
	mine, others := &snapshot.Snapshot{Node: "n1", Networks: map[snapshot.VNI]snapshot.Network{100: {}}}, &snapshot.Snapshot{Node: "n2", Networks: map[snapshot.VNI]snapshot.Network{200: {}}}
	p.publish("n1", mine)
	p.publish("n2", others)
	begin := func(id, project string) (*capturing, bool) {
		c := &capturing{project: project, what: snapshot.Capture{ID: id, VNIs: []snapshot.VNI{100}}, out: make(chan snapshot.Captured, 2)}
		_, ok := p.begin(c)
		return c, ok
	}
	c, ok := begin("a", "shop")
	if !ok || len(out["n1"].Captures) != 1 || out["n2"] != others || len(mine.Captures) != 0 {
		t.Fatalf("got %+v", out)
	}
	// A node tells only of what it has, and only what was asked for.
	p.captured("n2", []snapshot.Captured{{Capture: "a", VNI: 100}})
	p.captured("n1", []snapshot.Captured{{Capture: "a", VNI: 200}, {Capture: "b", VNI: 100}, {Capture: "a", VNI: 100, Node: "lie"}, {Capture: "a", VNI: 100}, {Capture: "a", VNI: 100}})
	if len(c.out) != 2 || c.missed != 1 || (<-c.out).Node != "n1" {
		t.Errorf("%d seen, %d missed", len(c.out), c.missed)
	}
	for i := range maxCapturesEach - 1 {
		if _, ok := begin(fmt.Sprint(i), "shop"); !ok {
			t.Fatal("too few are possible")
		}
	}
	if _, ok := begin("more", "shop"); ok {
		t.Error("too many are possible")
	}
	if _, ok := begin("else", "bank"); !ok {
		t.Error("one project keeps another from capturing")
	}
	p.end(c)
	if len(out["n1"].Captures) != maxCapturesEach {
		t.Errorf("got %+v", out["n1"].Captures)
	}
	p.publish("n1", nil)
	if out["n1"] != nil {
		t.Error("a node that is gone has a snapshot")
	}
}

// tellTales is the data path of an agent: of every capture it tells three
// packets. The returned function ends it.
func tellTales(a *agent) (stop func()) {
	end := make(chan struct{})
	go func() {
		told := map[string]bool{}
		for {
			if s, _ := a.now(); s != nil {
				for id, what := range s.Captures {
					if told[id] {
						continue
					}
					told[id] = true
					for i := range 3 {
						a.client.Captured(snapshot.Captured{Capture: id, Time: time.Now(), Where: "from-workload", VNI: what.VNIs[0], Verdict: "allow", Length: i, Data: []byte{1, 2, 3}})
					}
				}
			}
			select {
			case <-end:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return func() { close(end) }
}

// capturesOfBoth: what is seen by nodes of another process is seen too.
func capturesOfBoth(t *testing.T, c *running, a, b *agent) {
	defer tellTales(a)()
	defer tellTales(b)()
	body, err := c.admin().Post().RequestURI(capturesPath + "?seconds=20&packets=6").Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	from := map[string]int{}
	for s := bufio.NewScanner(body); s.Scan(); {
		var one snapshot.Captured
		if err := json.Unmarshal(s.Bytes(), &one); err != nil {
			t.Error(err)
		}
		from[one.Node]++
	}
	if from["node-a"] != 3 || from["node-b"] != 3 {
		t.Errorf("seen: %v", from)
	}
}

// captures: packets that nodes see come to who asked, who has to be somebody.
func captures(t *testing.T, c *running, a *agent) {
	defer tellTales(a)()
	body, err := c.admin().Post().RequestURI(capturesPath + "?workload=web&seconds=20&packets=3").Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	begin := time.Now()
	lines := 0
	for s := bufio.NewScanner(body); s.Scan(); lines++ {
		var one snapshot.Captured
		if err := json.Unmarshal(s.Bytes(), &one); err != nil || one.Node != "node-a" || one.Length != lines || len(one.Data) != 3 {
			t.Errorf("got %s, %v", s.Bytes(), err)
		}
	}
	if lines != 3 || time.Since(begin) > 10*time.Second {
		t.Errorf("%d lines after %s", lines, time.Since(begin))
	}
	eventually(t, "the capture is taken away", func() error {
		if s, _ := a.now(); len(s.Captures) != 0 {
			return fmt.Errorf("there is %v", s.Captures)
		}
		return nil
	})
	if _, err := c.admin().Post().RequestURI(capturesPath + "?seconds=61").Stream(t.Context()); err == nil || !strings.Contains(err.Error(), "1 to 60") {
		t.Errorf("got %v", err)
	}
}

// TestRelayIsForProcesses: nobody else gets around the limits with it.
func TestRelayIsForProcesses(t *testing.T) {
	l := newLoop(silent(), time.Now, nil)
	l.current.Store(captureFacts())
	h := capturesHandler{loop: l, publisher: newPublisher(func(string, *snapshot.Snapshot) {}), now: time.Now, life: t.Context(),
		state: func() []discovery.NodeState { return nil }, peers: func() []peer { return nil }}
	if w, _ := ask(t, h, http.MethodPost, "/apis/moire.dev/v1alpha1/captures?relay=1"); w.Code != http.StatusForbidden {
		t.Errorf("got %d", w.Code)
	}
}

// TestRelayedCapturesCountForTheirProject: captures of one project leave those
// of another their room in every process.
func TestRelayedCapturesCountForTheirProject(t *testing.T) {
	places := map[string]string{}
	h := capturesHandler{}
	for _, project := range []string{"shop", ""} {
		other := peer{name: "b", url: "https://192.0.2.1", do: func(r *http.Request) (*http.Response, error) {
			places[project] = projectOfPath(r)
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
		}}
		if err := h.relayTo(t.Context(), other, &capturing{project: project}, 1, func() {}); err != nil {
			t.Fatal(err)
		}
	}
	if places["shop"] != "shop" || places[""] != "" || len(places) != 2 {
		t.Errorf("asked for %v", places)
	}
}
