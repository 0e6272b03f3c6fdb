package main

import (
	"context"
	"fmt"
	"net"
	"sync"

	"moire.dev/moire/proxy/judge/smuggle"
	"moire.dev/moire/snapshot/l7"
)

const stamp = "stamped-by-the-proxy-5f1c"

// smuggled puts the whole corpus through the proxy to every back end.
func smuggled(ctx context.Context, h *hall) ([]verdict, error) {
	c := &l7.Config{Name: "judged", Workers: 1}
	ranges := make([]*smuggle.Range, len(smuggle.Backends))
	second := make([]string, len(smuggle.Backends))
	for i, kind := range smuggle.Backends {
		backend, err := smuggle.StartBackend(ctx, h.Stage, kind)
		if err != nil {
			return nil, err
		}
		tapped, first := h.Address(), h.Address()
		second[i] = h.Address()
		tap, err := smuggle.NewTap(tapped, backend)
		if err != nil {
			return nil, err
		}
		defer tap.Close()
		ranges[i] = &smuggle.Range{Proxy: first, Tap: tap, Stamp: stamp}
		addRange(c, kind, first, second[i], tapped)
	}
	p, err := h.Proxy(ctx, h.kind, c, nil)
	if err != nil {
		return nil, err
	}
	findings := make([][]smuggle.Finding, len(ranges))
	var wg sync.WaitGroup
	for i, r := range ranges {
		wg.Go(func() {
			for _, c := range smuggle.Corpus() {
				if ctx.Err() != nil {
					return
				}
				findings[i] = append(findings[i], again(func() smuggle.Finding { return r.Try(c) }))
			}
			for _, c := range smuggle.Corpus2() {
				if ctx.Err() != nil {
					return
				}
				findings[i] = append(findings[i], again(func() smuggle.Finding { return r.Try2(second[i], c) }))
			}
		})
	}
	wg.Wait()
	if p.Gone() {
		return nil, fmt.Errorf("the proxy has ended:\n%s", p.Tail())
	}
	return sumUp(findings), ctx.Err()
}

// again tries once more what was not answered in time, which a busy machine is
// enough for. What was out of step stays so.
func again(try func() smuggle.Finding) smuggle.Finding {
	f := try()
	if f.Desync == "" && f.Strict != "" {
		return try()
	}
	return f
}

// addRange adds a listener for HTTP/1 and one for HTTP/2 in front of one back
// end. Routes are named by what they match, and say so to the back end.
func addRange(c *l7.Config, kind, first, second, backend string) {
	c.Listeners = append(c.Listeners, l7.Listener{Name: kind + "-1", Address: first}, l7.Listener{Name: kind + "-2", Address: second, Protocol: l7.HTTP2})
	c.Clusters = append(c.Clusters, l7.Cluster{Name: kind, Endpoints: []l7.Endpoint{{Address: backend}}})
	rule := func(prefix, route string) l7.Rule {
		return l7.Rule{
			Matches:  []l7.Match{{Path: &l7.PathMatch{Kind: l7.Prefix, Value: prefix}}},
			Filters:  []l7.Filter{{RequestHeaders: &l7.HeaderChange{Set: []l7.Header{{Name: "X-Stamp", Value: stamp}, {Name: "X-Route", Value: route}}}}},
			Backends: []l7.Backend{{Cluster: kind}},
		}
	}
	on := []string{kind + "-1", kind + "-2"}
	c.Routes = append(c.Routes,
		l7.Route{Name: kind + "/a", Listeners: on, Hostnames: []string{"a.test"}, Rules: []l7.Rule{rule("/admin", "admin"), rule("/", "a")}},
		l7.Route{Name: kind + "/b", Listeners: on, Hostnames: []string{"b.test"}, Rules: []l7.Rule{rule("/", "b")}})
}

// sumUp makes a verdict for each back end (out of step), one about what was
// taken or refused wrongly, one about decisions on another host or path than the
// back end received, and one about another path than it makes of that.
func sumUp(findings [][]smuggle.Finding) []verdict {
	var all []verdict
	views, normal := verdict{judge: "smuggle-same-view"}, verdict{judge: "smuggle-normal-view"}
	for i, kind := range smuggle.Backends {
		v := verdict{judge: "smuggle-" + kind}
		for _, f := range findings[i] {
			v.say(f.Case.Name, sent(f, f.Desync))
			views.say(kind+"/"+f.Case.Name, f.Differs)
			normal.say(kind+"/"+f.Case.Name, f.Normal)
		}
		all = append(all, v)
	}
	strict := verdict{judge: "smuggle-strict"}
	for _, f := range findings[0] { // those before the back end written in Go, which answers once it read all
		strict.say(f.Case.Name, f.Strict)
	}
	return append(all, views, normal, strict)
}

func sent(f smuggle.Finding, wrong string) string {
	if wrong == "" {
		return ""
	}
	return fmt.Sprintf("%s; forwarded: %.300q", wrong, f.Sent)
}

// badAnswers puts a back end behind the proxy whose answers are ambiguous.
func badAnswers(ctx context.Context, h *hall) ([]verdict, error) {
	address := h.Address()
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	go smuggle.ServeAnswers(l)
	c, plain, _ := h.plain(address)
	p, err := h.Proxy(ctx, h.kind, c, nil)
	if err != nil {
		return nil, err
	}
	v := verdict{judge: "answers"}
	for _, a := range smuggle.Answers() {
		v.say(a.Name, smuggle.TryAnswer(plain, a))
	}
	v.say("proxy lives", goneSays(p.Gone()))
	return []verdict{v}, nil
}
