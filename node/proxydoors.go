package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"moire.dev/moire/node/local"
)

// proxyDoors answers programs on this node about its proxies.
type proxyDoors struct{ *proxying }

// status lists the proxies, with what each interface needs one for.
func (p proxyDoors) status() []local.Proxy {
	out := []local.Proxy{}
	needs := *p.needs.Load()
	for _, s := range p.proxies.Status() {
		one := local.Proxy{Name: s.Name, PID: s.PID, Up: s.Up, Since: s.Since, Interfaces: s.Interfaces, Error: s.Error, LeftOut: s.LeftOut,
			Starts: s.Starts, Last: s.Last, Log: s.Log, Why: map[string]string{}}
		for k, n := range needs {
			if n.why != "" && p.proxies.Name(k) == s.Name {
				one.Why[k.Project+"/"+k.Workload+"/"+k.Network] = n.why
			}
		}
		out = append(out, one)
	}
	return out
}

func (p proxyDoors) list(w http.ResponseWriter, _ *http.Request) { answerWith(w, p.status(), nil) }

// ask hands on what the administrator's door of a proxy says.
func (p proxyDoors) ask(w http.ResponseWriter, q *http.Request) {
	v := q.URL.Query()
	resp, err := p.open(q.Context(), v.Get("name"), v.Get("door"), v.Get("format"))
	if err != nil {
		answerWith(w, nil, err)
		return
	}
	defer resp.Body.Close()
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	io.Copy(w, resp.Body) // who reads has gone away when it fails
}

// open asks a proxy. Whoever gets an answer has to close its body.
func (p proxyDoors) open(ctx context.Context, name, door, format string) (*http.Response, error) {
	if !slices.Contains(local.ProxyDoors, door) {
		return nil, invalid{fmt.Errorf("a proxy cannot be asked for %q; it knows %s", door, strings.Join(local.ProxyDoors, ", "))}
	}
	all := p.proxies.Status()
	i := 0
	for i < len(all) && all[i].Name != name {
		i++
	}
	if i == len(all) {
		return nil, fmt.Errorf("%q: %w", name, errNoProxy)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", all[i].Admin)
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	target := "http://proxy/" + door
	if format != "" {
		target += "?" + url.Values{"format": {format}}.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("the proxy %s does not answer: %w", name, errors.Unwrap(err))
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return nil, fmt.Errorf("the proxy %s says: %s", name, strings.TrimSpace(string(b)))
	}
	return resp, nil
}

var errNoProxy = errors.New("no such proxy on this node; 'moire proxy' lists them")

// replace has other processes serve.
func (p proxyDoors) replace(w http.ResponseWriter, q *http.Request) {
	answerWith(w, struct{}{}, p.proxies.Replace(q.Context()))
}
