package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"moire.dev/moire/proxy/judge/attack"
	"moire.dev/moire/proxy/judge/stage"
	"moire.dev/moire/snapshot/l7"
)

const (
	// most memory that an attack may cost in all (S3), and per connection held (S4).
	mostRSS     = 64 << 20
	mostPerHeld = 16 << 10
	// honest requests per second, and how long before the attack.
	honestRate = 200
	honestSpan = 4 * time.Second
	// noise below which a longer p99 says nothing on two shared cores.
	noise = 3 * time.Millisecond
)

// Where processes run: the proxy alone on the second core; origin and honest
// client on the first, attackers there too, with what nobody else wants. Proxy
// and origin go before the other work of the machine, which takes a session of
// their own where the kernel groups by session; the honest client, who uses
// little, before all.
var (
	onProxy   = before("1")
	onOthers  = before("0")
	asHonest  = stage.Placing{"chrt", "-r", "10", "taskset", "-c", "0"}
	onLeisure = stage.Placing{"chrt", "-i", "0", "taskset", "-c", "0"}
)

func before(core string) stage.Placing {
	return stage.Placing{"setsid", "sh", "-c",
		`[ ! -w /proc/self/autogroup ] || echo -20 >/proc/self/autogroup; exec nice -n -20 taskset -c ` + core + ` "$@"`, "sh"}
}

// attacked lets every attacker of ours loose on a fresh proxy.
func attacked(ctx context.Context, h *hall) ([]verdict, error) {
	v := verdict{judge: "attack"}
	t := &strings.Builder{}
	fmt.Fprintln(t, "| attack | connections ended by the proxy | memory: before, most, growth | honest answered | p99 before, during | verdict |\n|---|---|---|---|---|---|")
	for _, a := range attack.Attacks() {
		if !slices.ContainsFunc(strings.Split(h.only, ","), func(part string) bool { return strings.Contains(a.Name, part) }) {
			continue
		}
		r, err := h.attackOne(ctx, a)
		if err != nil {
			v.table = t.String()
			return []verdict{v}, err
		}
		wrong := r.wrong(a)
		word := "ok"
		if wrong != "" {
			word = wrong
		}
		fmt.Fprintf(t, "| %s: %s | %s | %s | %d of %d | %s, %s | %s |\n", a.Name, a.About, r.outcome, r.memory(a), r.during.Answered, r.during.Asked, short(r.before.P99), short(r.during.P99), word)
		fmt.Fprintf(os.Stderr, "attack %s: %s\n", a.Name, word)
		v.say(a.Name, wrong)
	}
	v.table = t.String()
	return []verdict{v}, nil
}

// harm is what one attack did.
type harm struct {
	outcome        attack.Outcome
	before, during attack.Sample
	rss, most      int64
	gone           bool
}

func (h *hall) attackOne(ctx context.Context, a attack.Attack) (harm, error) {
	var r harm
	s, err := h.Sub(a.Name)
	if err != nil {
		return r, err
	}
	defer s.Close()
	own := &hall{Stage: s, kind: h.kind, own: h.own}
	origin, err := s.Origin(ctx, onOthers)
	if err != nil {
		return r, err
	}
	// What is large comes from an origin that works at leisure, as attackers do: on
	// two cores it is the proxy that is judged, not how fast bytes are made.
	large, err := s.Origin(ctx, onLeisure)
	if err != nil {
		return r, err
	}
	c, plain, tls := own.plain(origin)
	c.Clusters = append(c.Clusters, l7.Cluster{Name: "large", Endpoints: []l7.Endpoint{{Address: large}}})
	c.Routes[0].Rules = append(c.Routes[0].Rules, l7.Rule{
		Matches:  []l7.Match{{Path: &l7.PathMatch{Kind: l7.Prefix, Value: "/bytes"}}},
		Backends: []l7.Backend{{Cluster: "large"}}})
	c.Listeners[0].Limits.Connections = 2 * attack.Many
	c.Listeners[1].Limits.Connections = 2 * attack.Many
	target := plain
	if h.kind == "nginx" && a.H2 {
		c.Listeners = append(c.Listeners, c.Listeners[0]) // it cannot tell the two apart
		c.Listeners[2].Name, c.Listeners[2].Address, c.Listeners[2].Protocol = "known", s.Address(), "http2"
		target = c.Listeners[2].Address
	}
	if a.Target == "tls" {
		target = tls
	}
	p, err := s.Proxy(ctx, h.kind, c, onProxy)
	if err != nil {
		return r, err
	}
	if _, err := own.honest(ctx, plain, time.Second); err != nil { // warms up
		return r, err
	}
	if r.before, err = own.honest(ctx, plain, honestSpan); err != nil {
		return r, err
	}
	if r.rss, err = p.RSS(); err != nil {
		return r, err
	}
	r.most = r.rss
	var wg sync.WaitGroup
	var attackErr, honestErr error
	wg.Go(func() { attackErr = own.self(ctx, onLeisure, &r.outcome, "attacker", a.Name, target) })
	wg.Go(func() {
		// Attackers who hold connections are judged while all are open.
		if a.Connections == attack.Many {
			time.Sleep(a.Span / 4)
		}
		r.during, honestErr = own.honest(ctx, plain, a.Span*2/3)
	})
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for {
		select {
		case <-done:
			r.gone = p.Gone()
			if attackErr != nil {
				return r, attackErr
			}
			return r, honestErr
		case <-time.After(50 * time.Millisecond):
			if rss, err := p.RSS(); err == nil {
				r.most = max(r.most, rss)
			}
		}
	}
}

// honest asks from a process of its own.
func (h *hall) honest(ctx context.Context, address string, span time.Duration) (attack.Sample, error) {
	var s attack.Sample
	return s, h.self(ctx, asHonest, &s, "honest", address, strconv.Itoa(honestRate), span.String())
}

// self runs this program in another process, which prints one JSON value.
func (h *hall) self(ctx context.Context, where stage.Placing, into any, args ...string) error {
	path, err := os.Executable()
	if err != nil {
		return err
	}
	command := append(append(where[:len(where):len(where)], path), args...)
	bounded, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(bounded, command[0], command[1:]...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, complaint.String())
	}
	return json.Unmarshal(out, into)
}

// asSelf is what self runs.
func asSelf(ctx context.Context, args []string) (any, error) {
	switch {
	case args[0] == "attacker" && len(args) == 3:
		a, ok := attack.Find(args[1])
		if !ok {
			return nil, fmt.Errorf("no attack is called %q", args[1])
		}
		return a.Run(ctx, args[2])
	case args[0] == "honest" && len(args) == 4:
		rate, err := strconv.Atoi(args[2])
		if err != nil {
			return nil, err
		}
		span, err := time.ParseDuration(args[3])
		if err != nil {
			return nil, err
		}
		return attack.Honest(ctx, args[1], rate, span), nil
	}
	return nil, fmt.Errorf("%v: not for people", args)
}

// wrong says what of S3 and S4 was missed.
func (r *harm) wrong(a attack.Attack) string {
	var all []string
	add := func(bad bool, format string, args ...any) {
		if bad {
			all = append(all, fmt.Sprintf(format, args...))
		}
	}
	add(r.gone, "the proxy has ended")
	add(r.outcome.Opened == 0, "no attacker got through (%d refused)", r.outcome.Refused)
	add(a.Closes && r.outcome.Closed == 0, "the attacker is not closed")
	if a.Held {
		add((r.most-r.rss)/int64(a.Connections) > mostPerHeld, "%d bytes per connection", (r.most-r.rss)/int64(a.Connections))
		add(r.outcome.Opened < a.Connections, "only %d connections", r.outcome.Opened)
	} else {
		add(r.most-r.rss > mostRSS, "memory grew by %d MiB", (r.most-r.rss)>>20)
	}
	add(r.during.Answered < r.during.Asked, "honest client: %d of %d, %s", r.during.Answered, r.during.Asked, r.during.Error)
	add(r.during.P99 > 2*r.before.P99 && r.during.P99 > r.before.P99+noise, "honest p99 %.1f times as long", float64(r.during.P99)/float64(r.before.P99))
	return strings.Join(all, "; ")
}

func (r *harm) memory(a attack.Attack) string {
	text := fmt.Sprintf("%d, %d, %d MiB", r.rss>>20, r.most>>20, (r.most-r.rss)>>20)
	if a.Held {
		text += fmt.Sprintf(" (%.1f KiB per connection)", float64(r.most-r.rss)/1024/float64(a.Connections))
	}
	return text
}

func short(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1000) }
