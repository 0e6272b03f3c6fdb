package control

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"moire.dev/moire/snapshot"
)

// Bounds of one document that is fetched.
const (
	maxDocument  = 256 << 10
	fetchTimeout = 10 * time.Second
)

// errNotPublic says alike of a name that is unknown and of one that is inside,
// so that nobody learns which names exist there.
var errNotPublic = errors.New("the host has no public address")

// guard fetches documents that tenants name, and only such as anybody on the
// Internet could fetch: a tenant must not make the control plane ask inside.
type guard struct {
	client *http.Client
	// inside are addresses that may be asked all the same.
	inside []netip.Prefix
	lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	// own are the addresses of this machine.
	own func() []netip.Addr
}

// newGuard makes a guard. lookup finds the addresses of names; trust is nil, but
// in tests.
func newGuard(inside []netip.Prefix, lookup func(context.Context, string) ([]netip.Addr, error), trust *tls.Config) *guard {
	g := &guard{inside: inside, lookup: lookup, own: ownAddresses}
	g.client = &http.Client{
		Timeout: fetchTimeout,
		Transport: &http.Transport{DialContext: g.dial, TLSClientConfig: trust, TLSHandshakeTimeout: fetchTimeout,
			DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return g
}

// dial connects to a host by the very address that was looked at, so that a name
// cannot mean one address while it is judged and another one later.
func (g *guard) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	if a, err := netip.ParseAddr(host); err == nil {
		addrs = []netip.Addr{a}
	} else if addrs, err = g.lookup(ctx, host); err != nil {
		return nil, errNotPublic
	}
	err = errNotPublic
	for _, a := range addrs {
		if !g.allows(a) {
			continue
		}
		var c net.Conn
		if c, err = (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(a.Unmap().String(), port)); err == nil {
			return c, nil
		}
	}
	return nil, err
}

// notPublic are the special purpose addresses of IANA's registries that are no
// host on the Internet, and those in which another address is hidden.
var notPublic = func() (out []netip.Prefix) {
	for _, s := range []string{"10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
		"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}()

// global is where public IPv6 addresses are.
var global = netip.MustParsePrefix("2000::/3")

func (g *guard) allows(a netip.Addr) bool {
	a = a.Unmap()
	in := func(p netip.Prefix) bool { return p.Contains(a) }
	if a.IsValid() && a.Zone() == "" && slices.ContainsFunc(g.inside, in) {
		return true
	}
	return a.IsValid() && a.Zone() == "" && !snapshot.StaysInside(a) && (a.Is4() || global.Contains(a)) &&
		!slices.ContainsFunc(notPublic, in) && !slices.Contains(g.own(), a)
}

func ownAddresses() (out []netip.Addr) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil // what is private is refused all the same
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}

// fetch gets a document. fresh is how long its owner says that it stays as it is;
// 0: nothing said.
func (g *guard) fetch(ctx context.Context, uri string) (body []byte, fresh time.Duration, err error) {
	if !strings.HasPrefix(uri, "https://") {
		return nil, 0, errors.New("only https is asked")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return nil, 0, errors.New("it is not a URL")
	}
	r.Header.Set("Accept", "application/json, application/jwk-set+json")
	r.Header.Set("User-Agent", "moired")
	answer, err := g.client.Do(r)
	if err != nil {
		return nil, 0, unwrapped(err)
	}
	defer answer.Body.Close()
	switch {
	case answer.StatusCode/100 == 3:
		return nil, 0, fmt.Errorf("it answers %d and points to %.200q, which is not followed; write that", answer.StatusCode, answer.Header.Get("Location"))
	case answer.StatusCode != http.StatusOK:
		return nil, 0, fmt.Errorf("it answers %d", answer.StatusCode)
	}
	body, err = io.ReadAll(io.LimitReader(answer.Body, maxDocument+1))
	switch {
	case err != nil:
		return nil, 0, unwrapped(err)
	case len(body) > maxDocument:
		return nil, 0, fmt.Errorf("it is larger than %d bytes", maxDocument)
	}
	return body, maxAge(answer.Header.Values("Cache-Control")), nil
}

// unwrapped is the cause of a failure without addresses and ports of ours, which
// differ each time.
func unwrapped(err error) error {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, errNotPublic):
		return errNotPublic
	case errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("it does not answer in time")
	}
	var op *net.OpError
	for ; errors.As(err, &op); err = op.Err {
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return err
}

// maxAge reads Cache-Control (RFC 9111); what must not be kept is asked for again
// as soon as may be.
func maxAge(fields []string) (fresh time.Duration) {
	for _, f := range fields {
		for d := range strings.SplitSeq(f, ",") {
			name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(d)), "=")
			switch name {
			case "no-store", "no-cache":
				return time.Nanosecond
			case "max-age":
				if n, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
					fresh = max(time.Duration(n)*time.Second, time.Nanosecond)
				}
			}
		}
	}
	return fresh
}
