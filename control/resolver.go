package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Limits of the resolver.
const (
	maxNames      = 4096
	maxAnswer     = 64 // addresses of one name
	askers        = 16 // at one time
	askTimeout    = 2 * time.Second
	askServers    = 3 // tried for one question
	minTTL        = time.Second
	maxTTL        = time.Hour
	firstBackoff  = 5 * time.Second
	longestPause  = time.Minute
	resolverFile  = "/etc/resolv.conf"
	maxAliases    = 16
	ednsSize      = 1232
	resolverPause = 200 * time.Millisecond
)

// resolver asks for the external names of Services, again when their TTL ends.
// It works on the process that allocates; the others read its rows. A failure
// keeps the last good answer.
type resolver struct {
	keeper  *keeper
	servers func() ([]string, error)
	log     *slog.Logger
	now     func() time.Time

	mu     sync.Mutex
	wanted []string
	bell   chan struct{}
}

func newResolver(k *keeper, servers []string, log *slog.Logger, now func() time.Time) *resolver {
	find := func() ([]string, error) {
		if len(servers) > 0 {
			return servers, nil
		}
		cfg, err := dns.ClientConfigFromFile(resolverFile)
		if err != nil {
			return nil, fmt.Errorf("no name server is known: %w; say which with --name-servers", err)
		}
		var out []string
		for _, s := range cfg.Servers {
			out = append(out, net.JoinHostPort(s, cfg.Port))
		}
		if len(out) == 0 {
			return nil, fmt.Errorf("%s names no name server; say which with --name-servers", resolverFile)
		}
		return out, nil
	}
	return &resolver{keeper: k, servers: find, log: log, now: now, bell: make(chan struct{}, 1)}
}

// want replaces the list of names that are wanted.
func (r *resolver) want(names []string) {
	r.mu.Lock()
	changed := !slices.Equal(r.wanted, names)
	r.wanted = names
	r.mu.Unlock()
	if changed {
		select {
		case r.bell <- struct{}{}:
		default:
		}
	}
}

// run asks until ctx ends.
func (r *resolver) run(ctx context.Context) {
	state := map[string]*asked{}
	for ctx.Err() == nil {
		next := r.pass(ctx, state)
		t := time.NewTimer(max(next.Sub(r.now()), resolverPause))
		select {
		case <-ctx.Done():
		case <-r.bell:
		case <-t.C:
		}
		t.Stop()
	}
}

// pass asks for what is due and returns when something is due next.
func (r *resolver) pass(ctx context.Context, state map[string]*asked) time.Time {
	r.mu.Lock()
	wanted := r.wanted
	r.mu.Unlock()
	if len(wanted) > maxNames {
		r.log.Warn("too many external names; the last ones are not asked for", "names", len(wanted), "most", maxNames)
		wanted = wanted[:maxNames]
	}
	now := r.now()
	known := r.keeper.resolved()
	var saved map[string]resolution
	if known != nil {
		saved = known.by
	}
	due, changed := due(wanted, state, saved, now)
	servers, err := r.servers()
	var mu sync.Mutex
	var wg sync.WaitGroup
	room := make(chan struct{}, askers)
	for _, name := range due {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			found, ttl, failure := resolution{}, time.Duration(0), err
			if failure == nil {
				found, ttl, failure = lookup(ctx, servers, name)
			}
			mu.Lock()
			defer mu.Unlock()
			a := state[name]
			before, was := known.find(name)
			if failure != nil {
				a.backoff = min(max(2*a.backoff, firstBackoff), longestPause)
				found, ttl = resolution{Addresses: before.Addresses, Error: fmt.Sprintf("%s cannot be resolved: %v", name, failure)}, a.backoff
			} else {
				a.backoff = 0
			}
			a.next = r.now().Add(ttl)
			if !was || !before.equal(found) {
				changed[name] = &found
			}
		})
	}
	wg.Wait()
	if len(changed) > 0 && ctx.Err() == nil {
		if err := r.keeper.saveNames(ctx, changed); err != nil && ctx.Err() == nil {
			r.log.Warn("cannot save what names resolve to; trying again", "error", err)
			for name := range changed {
				delete(state, name)
			}
		}
	}
	next := now.Add(longestPause)
	for _, a := range state {
		if a.next.Before(next) && a.unused.IsZero() {
			next = a.next
		}
	}
	return next
}

// due lists what must be asked for now of what is wanted; changed holds what
// nobody has wanted for so long that it is forgotten. known is what is saved.
func due[V any](wanted []string, state map[string]*asked, known map[string]V, now time.Time) (due []string, changed map[string]*V) {
	changed = map[string]*V{}
	current := make(map[string]bool, len(wanted))
	for _, name := range wanted {
		current[name] = true
		a := state[name]
		if a == nil {
			a = &asked{}
			state[name] = a
		}
		a.unused = time.Time{}
		if !a.next.After(now) {
			due = append(due, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if current[name] {
			continue
		}
		a := state[name]
		switch {
		case a == nil:
			state[name] = &asked{unused: now}
		case a.unused.IsZero():
			a.unused = now
		case now.Sub(a.unused) >= retireAfter:
			changed[name] = nil
			delete(state, name)
		}
	}
	return due, changed
}

// lookup asks for the addresses of both families. A name that does not exist
// is an answer, without addresses.
func lookup(ctx context.Context, servers []string, name string) (resolution, time.Duration, error) {
	var out resolution
	ttl := maxTTL
	missing := ""
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		answer, err := exchange(ctx, servers, name, kind)
		if err != nil {
			return out, 0, err
		}
		addrs, lives := addressesIn(answer, dns.CanonicalName(name), kind)
		out.Addresses = append(out.Addresses, addrs...)
		if len(addrs) > 0 || answer.Rcode == dns.RcodeNameError {
			ttl = min(ttl, lives)
		}
		if answer.Rcode == dns.RcodeNameError {
			missing = name + " does not exist"
		}
	}
	slices.SortFunc(out.Addresses, netip.Addr.Compare)
	out.Addresses = slices.Compact(out.Addresses)
	if len(out.Addresses) > maxAnswer {
		out.Addresses = out.Addresses[:maxAnswer]
		out.Error = fmt.Sprintf("%s has more than %d addresses; the first are used", name, maxAnswer)
	}
	if len(out.Addresses) == 0 {
		out.Error = missing
		if missing == "" {
			out.Error = name + " has no address"
		}
		ttl = min(ttl, longestPause)
	}
	return out, max(ttl, minTTL), nil
}

// addresses asks for the addresses of a name, for us and not for a Service.
func (r *resolver) addresses(ctx context.Context, name string) ([]netip.Addr, error) {
	servers, err := r.servers()
	if err != nil {
		return nil, err
	}
	found, _, err := lookup(ctx, servers, name)
	return found.Addresses, err
}

// exchange asks one server after the other until one gives an answer.
func exchange(ctx context.Context, servers []string, name string, kind uint16) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), kind)
	q.SetEdns0(ednsSize, false)
	var errs []error
	for _, server := range servers[:min(len(servers), askServers)] {
		for _, network := range []string{"udp", "tcp"} {
			client := &dns.Client{Net: network, Timeout: askTimeout, UDPSize: ednsSize}
			answer, _, err := client.ExchangeContext(ctx, q, server)
			if err != nil {
				errs = append(errs, err)
				break
			}
			if answer.Truncated && network == "udp" {
				continue
			}
			if answer.Rcode == dns.RcodeSuccess || answer.Rcode == dns.RcodeNameError {
				return answer, nil
			}
			errs = append(errs, fmt.Errorf("%s says %s", server, dns.RcodeToString[answer.Rcode]))
			break
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// addressesIn follows the aliases of an answer, and returns the addresses with
// the shortest TTL on the way; without addresses, how long that holds.
func addressesIn(m *dns.Msg, name string, kind uint16) ([]netip.Addr, time.Duration) {
	ttl := maxTTL
	shorten := func(h *dns.RR_Header) { ttl = min(ttl, time.Duration(h.Ttl)*time.Second) }
	for range maxAliases {
		i := slices.IndexFunc(m.Answer, func(rr dns.RR) bool {
			return rr.Header().Rrtype == dns.TypeCNAME && strings.EqualFold(rr.Header().Name, name)
		})
		if i < 0 {
			break
		}
		shorten(m.Answer[i].Header())
		name = m.Answer[i].(*dns.CNAME).Target
	}
	var out []netip.Addr
	for _, rr := range m.Answer {
		if rr.Header().Rrtype != kind || !strings.EqualFold(rr.Header().Name, name) {
			continue
		}
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if a, ok := netip.AddrFromSlice(ip); ok {
			out = append(out, a.Unmap())
			shorten(rr.Header())
		}
	}
	if len(out) == 0 {
		ttl = longestPause
		for _, rr := range m.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				ttl = min(ttl, time.Duration(min(soa.Minttl, soa.Hdr.Ttl))*time.Second)
			}
		}
		ttl = max(ttl, firstBackoff)
	}
	return out, ttl
}
