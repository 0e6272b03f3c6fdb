package lab

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"moire.dev/moire/cli/remote"
	"moire.dev/moire/explain"
	"moire.dev/moire/flow/record"
)

// randomTenant is a Domain of which another one has the same addresses.
type randomTenant struct {
	domain  string
	lasting string // what is said now of Workloads, Services and the Network
	passing string // Policies and routes
}

func (r *randomTenant) project(w resident) string { return r.domain + "-" + w.project }

func (r *randomTenant) netns(w resident) string {
	return filepath.Join(netnsDir, "moire-t-w-"+r.project(w)+"-"+w.name)
}

// trial is one run of the differential test.
type trial struct {
	*book
	lab     *Lab
	api     *remote.Client
	dice    dice
	tenants []*randomTenant
	file    string // of what passes
	applied bool
	asked   int
	counts  map[string]int
	slow    int // found as told only when asked again
}

// TestRequestsDifferential: random intent in two tenants with the same addresses,
// random requests and bytes through the lab; what happens to each, and what the
// records tell of it, is what `moire explain` says.
func TestRequestsDifferential(t *testing.T) {
	r := theLab(t).trial(t, "rand")
	r.rounds(t, number(os.Getenv("MOIRE_ROUNDS"), times(2, 14)), times(100, 150))
}

// trial begins one in two tenants whose names begin so.
func (l *Lab) trial(t *testing.T, name string) *trial {
	// A check asks the same each time; the long run looks for what nobody has met yet.
	seed := uint64(number(os.Getenv("MOIRE_SEED"), times(1622707, int(time.Now().UnixNano()&0xffffff))))
	t.Logf("MOIRE_SEED=%d asks the same again", seed)
	api, err := remote.Open(remote.Config{Kubeconfig: l.Kubeconfig(), Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	r := &trial{book: &book{asks: map[string]*met{}}, lab: l, api: api, dice: dice{rand.New(rand.NewPCG(seed, 1))}, file: filepath.Join(t.TempDir(), "passing.yaml"), counts: map[string]int{}}
	for _, domain := range []string{name + "-a", name + "-b"} {
		l.apply(t, strings.ReplaceAll(randomGround, "DOMAIN", domain))
		r.tenants = append(r.tenants, &randomTenant{domain: domain})
	}
	t.Cleanup(func() { r.forget(t) })
	r.declare(t)
	r.settle(t)
	return r
}

// rounds ask so many pairs each; the first by what is declared already.
func (r *trial) rounds(t *testing.T, n, each int) {
	for i := range n {
		if r.asked > 0 || i > 0 {
			r.declare(t)
		}
		r.calm(t)
		r.round(t, each)
	}
	if r.slow > max(5, r.asked/50) {
		t.Errorf("too often it was as explained only when asked again: %d of %d", r.slow, r.asked)
	}
	t.Logf("%d pairs, %d of them as explained only when asked again: %v", r.asked, r.slow, r.counts)
}

// calm waits until the control plane has seen what was declared, and the nodes are it.
func (r *trial) calm(t *testing.T) {
	t.Helper()
	for range 4 {
		time.Sleep(100 * time.Millisecond)
		r.lab.settle(t)
	}
}

// declare applies new random intent in both tenants.
func (r *trial) declare(t *testing.T) {
	r.forget(t)
	var lasting, passing string
	for _, x := range r.tenants {
		x.lasting = strings.ReplaceAll(r.dice.lasting(), "DOMAIN", x.domain)
		x.passing = strings.ReplaceAll(r.dice.passing(), "DOMAIN", x.domain)
		lasting, passing = lasting+"---"+x.lasting, passing+x.passing
	}
	r.lab.must(t, "apply", "-f", written(t, filepath.Join(t.TempDir(), "lasting.yaml"), lasting))
	r.lab.must(t, "apply", "-f", written(t, r.file, passing))
	r.applied = true
}

// written is a file with a text.
func written(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// forget removes what the last round had.
func (r *trial) forget(t *testing.T) {
	if r.applied {
		r.lab.must(t, "delete", "-f", r.file)
	}
	r.applied = false
}

// settle attaches the residents, who serve from then on.
func (r *trial) settle(t *testing.T) {
	for _, x := range r.tenants {
		for _, w := range residents {
			network := "net"
			if w.project != "p" {
				network = x.domain + "-p/net"
			}
			g := r.lab.attach(t, w.node, x.project(w), network, w.name)
			r.serve(t, g.netns, x.project(w)+"/"+w.name)
		}
	}
}

// round asks many pairs at once, then one by one those that were not as told.
func (r *trial) round(t *testing.T, each int) {
	began := time.Now()
	asks := make([]*ask, each)
	for i := range asks {
		asks[i] = r.dice.ask(r.tenants[i%len(r.tenants)])
	}
	var all errgroup.Group
	all.SetLimit(32)
	for _, a := range asks {
		all.Go(func() error { r.send(a, time.Second); return nil })
	}
	all.Wait()
	differ := r.judge(t, asks, began)
	r.asked += each
	for a, why := range differ {
		t.Logf("asked again: %s", r.reproduction(a, why))
	}
	for try := 0; try < 2 && len(differ) > 0; try++ {
		began = time.Now()
		var again []*ask
		for a := range differ {
			b := *a
			b.id = fmt.Sprintf("%016x", rand.Uint64())
			again = append(again, &b)
			r.send(&b, 3*time.Second)
		}
		late := r.judge(t, again, began)
		r.slow += len(differ) - len(late)
		differ = late
	}
	if len(differ) == 0 {
		return
	}
	for _, x := range r.tenants {
		t.Logf("intent of %s:\n%s%s", x.domain, x.lasting, x.passing)
	}
	for a, why := range differ { // last, as logs are cut from the front
		t.Errorf("%s", r.reproduction(a, why))
	}
	for a := range differ {
		r.shrink(t, a)
		break
	}
}

// judge compares all with what explain says. Records may take a while to come.
func (r *trial) judge(t *testing.T, asks []*ask, since time.Time) map[*ask]string {
	answers := map[*ask]explain.Answer{}
	for _, a := range asks {
		answers[a] = r.explain(t, a)
	}
	var differ map[*ask]string
	for range 40 {
		all := r.records(t, since)
		differ = map[*ask]string{}
		for _, a := range asks {
			answer, m := answers[a], r.of(a.id)
			m.mu.Lock()
			if why := differs(&answer, m, about(all, since, a, m, &answer)); why != "" {
				differ[a] = why
			}
			m.mu.Unlock()
		}
		if len(differ) == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, a := range answers {
		r.counts[word(a)]++
	}
	return differ
}

// word sorts answers.
func word(a explain.Answer) string {
	verdict := "denied"
	switch {
	case a.Allow:
		verdict = "allowed"
	case a.Depends:
		verdict = "depends"
	case a.Proxy:
		verdict = "not a request"
	}
	return verdict + " by " + a.Decides
}

// explain asks the control plane, as `moire explain` does.
func (r *trial) explain(t *testing.T, a *ask) (answer explain.Answer) {
	project := a.tenant.project(a.from)
	v := url.Values{"from": {project + "/" + a.from.name}, "to": {a.to.Addr().String()}, "port": {strconv.Itoa(int(a.to.Port()))}, "network": {a.tenant.domain + "-p/net"}}
	if !a.bytes {
		v["request"], v["header"] = []string{a.method + " " + a.path}, append(slices.Clone(a.fields), "host: "+a.host, "x-ask: "+a.id)
	}
	got, err := r.api.Do(context.Background(), remote.Request{Path: "/apis/moire.dev/v1alpha1/explain", Query: v})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(got.Body, &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// told are records: own are of the request and of the caller's own connection,
// between of connections that proxies made between the two, for this or another
// ask, and of others that ask for the same: their verdicts without a request are those
// of this.
type told struct{ own, between []record.Record }

func (r *trial) records(t *testing.T, since time.Time) (out []record.Record) {
	v := url.Values{"since": {since.Add(-time.Second).Format(time.RFC3339Nano)}, "limit": {"20000"}}
	got, err := r.api.Do(context.Background(), remote.Request{Path: "/apis/moire.dev/v1alpha1/flows", Query: v})
	if err != nil {
		t.Fatal(err)
	}
	lines := json.NewDecoder(bytes.NewReader(got.Body))
	for lines.More() {
		var x record.Record
		if err := lines.Decode(&x); err != nil {
			t.Fatal(err)
		}
		out = append(out, x)
	}
	return out
}

// about sorts out what is about an ask. Connections that proxies had before, for
// requests, went by what was said then.
func about(all []record.Record, since time.Time, a *ask, m *met, answer *explain.Answer) (out told) {
	source := addr(a.from.host, a.to.Addr().Is6())
	ends := map[string]bool{}
	for _, w := range waysOf(answer) {
		ends[cmp.Or(w.Backend, a.to.String())] = true // rules may tell the families apart
	}
	for _, x := range all {
		// Who comes back to itself comes from the address of the Service.
		itself := answer.Service != "" && x.Source.Address == a.to.Addr() && x.Destination.Domain == a.tenant.domain
		mine := x.Source.Domain == a.tenant.domain && x.Source.Project == a.tenant.project(a.from) && x.Source.Workload == a.from.name
		passed := x.Request == nil || x.Request.Method == "" && x.Request.ID == ""
		switch {
		case (mine && x.Source.Address == source || itself) && x.Source.Port == m.port, x.Request != nil && x.Request.ID == a.id:
			out.own = append(out.own, x)
		case mine && passed && !x.Start.Before(since) && ends[netip.AddrPortFrom(x.Destination.Address, x.Destination.Port).String()]:
			out.between = append(out.between, x)
		}
	}
	return out
}

// reproduction is all that somebody needs to see it again.
func (r *trial) reproduction(a *ask, why string) string {
	var b strings.Builder
	m := r.of(a.id)
	fmt.Fprintf(&b, "%s\n%s\nreached %q (path %q, host %q), status %d, answered %t, from port %d, error %v\n", why, a, m.reached, m.path, m.host, m.status, m.answer, m.port, m.err)
	return b.String()
}
