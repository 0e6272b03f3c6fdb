package telemetry

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"moire.dev/moire/snapshot/l7"
)

var update = flag.Bool("update", false, "write golden files anew")

func metricsOf(t *testing.T, tel *Telemetry) string {
	t.Helper()
	var b bytes.Buffer
	if err := tel.WriteMetrics(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// golden is without what differs from run to run.
func golden(text string) string {
	var kept []string
	for l := range strings.Lines(text) {
		if !regexp.MustCompile(`^(# (HELP|TYPE) )?(go|process)_|^moire_proxy_build_info`).MatchString(l) {
			kept = append(kept, l)
		}
	}
	return strings.Join(kept, "")
}

// promtool has nothing to say about it. Debian has it in the package prometheus.
func promtool(t *testing.T, text string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("MOIRE_REQUIRE_ROOT") == "1" {
			t.Fatal(err)
		}
		t.Log("promtool is missing; install the package prometheus to check the format")
		return
	}
	cmd := exec.Command(path, "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

// work has a worker tell of all sorts of things.
func work(w *Worker, tab *Table) {
	r := someRequest(tab)
	oneExchange(w, tab, r)
	r.Status, r.Flags, r.GRPC, r.Route, r.Cluster = 200, UpstreamFailed|RetriesExhausted, 14, tab.Rule(1, 0), 1
	oneExchange(w, tab, r)
	r.Reset()
	r.Table, r.Status, r.Flags, r.Start, r.End = tab, 404, NoRoute, 1, 20_001
	w.RequestStarted(tab, r.Route)
	w.RequestDone(r)
	w.RequestStarted(tab, tab.Rule(0, 1))
	w.TryStarted(tab, 0)
	w.ConnOpened(tab, 0)
	w.ConnOpened(tab, 0)
	w.ConnClosed(tab, 0)
	w.UpstreamOpened(tab, 0)
	w.UpstreamClosed(tab, 0)
	w.UpstreamOpened(tab, 1)
	for c := range lastRouteCounter {
		w.AddRoute(tab, tab.Rule(0, 0), c, uint64(c)+1)
	}
	for c := range lastClusterCounter {
		w.AddCluster(tab, 0, c, uint64(c)+1)
	}
	for c := range lastListenerCounter {
		w.AddListener(tab, 0, c, uint64(c)+1)
	}
}

func TestMetrics(t *testing.T) {
	tel := New(Options{Workers: 2, Version: "v1", Log: quiet()})
	tab := tel.Open(someConfig())
	work(tel.Worker(0), tab)
	work(tel.Worker(1), tab)
	text := metricsOf(t, tel)
	promtool(t, text)
	const path = "testdata/metrics.txt"
	if *update {
		if err := os.WriteFile(path, []byte(golden(text)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), golden(text)); d != "" {
		t.Errorf("-want +got; write it anew with -update\n%s", d)
	}
}

// Names come from people; anything in them stays one label.
func TestMetricsEscape(t *testing.T) {
	cfg := someConfig()
	cfg.Routes[0].Name = "a\"b\\c\nd{}é"
	tel := New(Options{Log: quiet()})
	tab := tel.Open(cfg)
	oneExchange(tel.Worker(0), tab, someRequest(tab))
	text := metricsOf(t, tel)
	promtool(t, text)
	if !strings.Contains(text, `moire_proxy_requests_total{route="a\"b\\c\nd{}é",rule="cart",code="2xx"} 1`) {
		t.Error(text)
	}
}

// value of a line of metrics; 0 when it is not there.
func value(t *testing.T, text, series string) float64 {
	t.Helper()
	for l := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(l, series+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

// Another configuration gives other ids to the same names; counters go on.
func TestCountersSurviveConfigurations(t *testing.T) {
	now := int64(1)
	tel := New(Options{Log: quiet(), Now: func() int64 { return now }})
	w := tel.Worker(0)
	first := tel.Open(someConfig())
	oneExchange(w, first, someRequest(first))
	w.RequestStarted(first, first.Rule(0, 0)) // goes on across the change

	cfg := someConfig()
	cfg.Routes = append([]l7.Route{{Name: "shop/new", Rules: []l7.Rule{{}, {}, {}}}}, cfg.Routes[0])
	cfg.Clusters[0], cfg.Clusters[1] = cfg.Clusters[1], cfg.Clusters[0]
	second := tel.Open(cfg)
	r := someRequest(second)
	r.Route, r.Cluster = second.Rule(1, 0), 1
	oneExchange(w, second, r)
	r.Route = second.Rule(0, 2)
	oneExchange(w, second, r)

	text := metricsOf(t, tel)
	for series, want := range map[string]float64{
		`moire_proxy_requests_total{route="shop/front",rule="cart",code="2xx"}`: 2,
		`moire_proxy_requests_total{route="shop/new",rule="2",code="2xx"}`:      1,
		`moire_proxy_requests_active{route="shop/front",rule="cart"}`:           1,
		`moire_proxy_upstream_requests_total{cluster="shop/cart",code="2xx"}`:   3,
	} {
		if got := value(t, text, series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	r.Table, r.Route = first, first.Rule(0, 0)
	w.RequestDone(r) // of the configuration before
	if got := value(t, metricsOf(t, tel), `moire_proxy_requests_active{route="shop/front",rule="cart"}`); got != 0 {
		t.Errorf("%v are active", got)
	}

	// A name that is gone is shown for a while, and then forgotten.
	cfg = someConfig()
	cfg.Routes = nil
	tel.Open(cfg)
	if !strings.Contains(metricsOf(t, tel), "shop/front") {
		t.Error("forgotten at once")
	}
	now += retention + 2
	tel.Open(cfg)
	if strings.Contains(metricsOf(t, tel), "shop/front") {
		t.Error("never forgotten")
	}
	oneExchange(w, second, r) // and does no harm
}

func TestRuleIDs(t *testing.T) {
	tab := New(Options{Log: quiet()}).Open(someConfig())
	for _, c := range [][3]int{{0, 0, 0}, {0, 1, 1}, {1, 0, 2}, {0, 2, None}, {1, 1, None}, {2, 0, None}, {-1, 0, None}, {0, -1, None}} {
		if got := tab.Rule(c[0], c[1]); int(got) != c[2] {
			t.Errorf("rule %d of route %d: %d, want %d", c[1], c[0], got, c[2])
		}
	}
}

// There are never more series than people can pay for.
func TestMetricsAreBounded(t *testing.T) {
	cfg := someConfig()
	for i := range 3 * mostShown {
		cfg.Routes = append(cfg.Routes, l7.Route{Name: "r/" + strconv.Itoa(i), Rules: []l7.Rule{{}}})
	}
	tel := New(Options{Log: quiet()})
	tab := tel.Open(cfg)
	w := tel.Worker(0)
	r := someRequest(tab)
	cfg.Telemetry.NoRecords = true
	for i := range int32(3 * mostShown) {
		r.Route = i
		w.count(tab, r)
	}
	w.count(tab, r) // the last is busy
	text := metricsOf(t, tel)
	promtool(t, text)
	if n := strings.Count(text, "moire_proxy_requests_total{"); n != mostShown+1 {
		t.Errorf("%d series", n)
	}
	if got := value(t, text, `moire_proxy_requests_total{route="others",rule="others",code="2xx"}`); got != 2*mostShown {
		t.Errorf("others: %v", got)
	}
	busiest := cfg.Routes[len(cfg.Routes)-4].Name // whose rule has the last id that was counted
	if value(t, text, `moire_proxy_requests_total{route="`+busiest+`",rule="0",code="2xx"}`) != 2 {
		t.Error("the busiest is not shown")
	}
}

// Readers see each figure whole, and never more ended than begun; for the race
// detector, too.
func TestReadersAndWriters(t *testing.T) {
	tel := New(Options{Workers: 2, Log: quiet()})
	tab := tel.Open(someConfig())
	stop := run(t, tel)
	var writers, readers sync.WaitGroup
	over := make(chan struct{})
	for i := range 2 {
		writers.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			for range 1000 {
				r := randomRequest(rng, tab)
				oneExchange(tel.Worker(i), tab, r)
				work(tel.Worker(i), tab)
			}
		})
	}
	readers.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
			}
			tab := tel.Open(someConfig())
			_ = tab
			tel.Last(10)
			for name, v := range tel.Stats() {
				if strings.HasSuffix(name, "_active") && v > 30_000 {
					t.Errorf("%s is %v", name, v)
				}
			}
			tel.WriteMetrics(&bytes.Buffer{})
		}
	})
	writers.Wait()
	close(over)
	readers.Wait()
	stop()
	text := metricsOf(t, tel)
	if got := value(t, text, "moire_proxy_records_total") + value(t, text, "moire_proxy_records_lost_total"); got != 2*1000*4 {
		t.Errorf("%v records made or lost", got)
	}
}

func TestOff(t *testing.T) {
	cfg := someConfig()
	cfg.Telemetry.NoMetrics, cfg.Telemetry.NoRecords = true, true
	tel := New(Options{Log: quiet()})
	tab := tel.Open(cfg)
	work(tel.Worker(0), tab)
	run(t, tel)()
	if text := metricsOf(t, tel); strings.Contains(text, "route=") || value(t, text, "moire_proxy_records_total") != 0 {
		t.Error(text)
	}
}
