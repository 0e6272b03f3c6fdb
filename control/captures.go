package control

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/compile"
	"moire.dev/moire/discovery"
	"moire.dev/moire/snapshot"
)

// Bounds of captures.
const (
	maxCapturesEach = 4  // at one time, of one project
	maxCapturesAll  = 32 // at one time
	maxCaptureTime  = 60 // seconds
	defaultTime     = 10
	maxPackets      = 100_000
	defaultPackets  = 10_000
	maxLength       = 65535
	defaultLength   = 256
	capturedQueue   = 8192
	// startWait is how long a capture waits until its nodes have it.
	startWait = 3 * time.Second
	// lastWords is how long what was seen at the end may be on its way.
	lastWords = 500 * time.Millisecond
	// skew is how much longer nodes may go on than we do, whose clock is not ours.
	skew = 10 * time.Second
)

// capturesHandler answers .../namespaces/<project>/captures: packets, or with
// trace=1 their hops, as JSON lines of snapshot.Captured, until all was seen.
// Of other projects only what the caller may explain there is seen.
type capturesHandler struct {
	loop      *loop
	publisher *publisher
	rights    rights
	state     func() []discovery.NodeState
	peers     func() []peer
	now       func() time.Time
	life      context.Context
}

func (h capturesHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	project := projectOfPath(r)
	f := h.loop.current.Load()
	if f == nil {
		fail(w, http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "the control plane is starting; try again in a few seconds")
		return
	}
	c := &capturing{project: project, out: make(chan snapshot.Captured, capturedQueue)}
	sees := func(string) bool { return true }
	if project != "" {
		sees = h.rights.sees(r, project)
	}
	seconds, err := 0, error(nil)
	relayed := r.URL.Query().Has("relay")
	if relayed {
		if !isAdministrator(r) {
			fail(w, http.StatusForbidden, metav1.StatusReasonForbidden, "relay is for other processes of the control plane")
			return
		}
		c.what, seconds, err = relayedCapture(r)
	} else {
		c.what, seconds, err = captureOf(r.URL.Query(), f, project, sees)
	}
	if err != nil {
		fail(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		return
	}
	c.what.Until = h.now().Add(time.Duration(seconds)*time.Second + skew).UTC()
	versions, ok := h.publisher.begin(c)
	if !ok {
		fail(w, http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests,
			fmt.Sprintf("there are %d captures of the project, or %d in all, already; wait until one has ended", maxCapturesEach, maxCapturesAll))
		return
	}
	defer h.publisher.end(c)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(h.life, cancel)()
	var others sync.WaitGroup
	if !relayed {
		h.relay(ctx, c, seconds, &others)
	}
	defer others.Wait()
	defer cancel()
	h.await(ctx, versions)
	h.stream(ctx, w, c, time.Duration(seconds)*time.Second)
}

// await waits until the nodes that are here have the capture in their kernel.
func (h capturesHandler) await(ctx context.Context, versions map[string]snapshot.Version) {
	for end := h.now().Add(startWait); h.now().Before(end); {
		missing := false
		for _, st := range h.state() {
			if v, is := versions[st.Node]; is && st.Connected && st.Wanted == v && st.Applied != v && st.Error == "" {
				missing = true
			}
		}
		if !missing || !sleep(ctx, 10*time.Millisecond) {
			return
		}
	}
}

// stream writes what comes until time or packets are used up.
func (h capturesHandler) stream(ctx context.Context, w http.ResponseWriter, c *capturing, length time.Duration) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	if control.Flush() != nil { // whoever sees the header is captured already
		return
	}
	end := time.NewTimer(length + lastWords)
	defer end.Stop()
	flush := time.NewTicker(50 * time.Millisecond)
	defer flush.Stop()
	out := json.NewEncoder(w)
	for n := 0; n < c.what.Packets; {
		select {
		case <-ctx.Done():
			return
		case one := <-c.out:
			if out.Encode(one) != nil {
				return // the caller is gone
			}
			n++
			continue
		case <-flush.C:
			if control.Flush() != nil {
				return
			}
			continue
		case <-end.C:
		}
		break
	}
	h.publisher.mu.Lock()
	missed := c.missed
	h.publisher.mu.Unlock()
	if missed > 0 {
		// Not a packet: whoever reads tells it apart by its field.
		_ = out.Encode(map[string]uint64{"missed": missed})
	}
	_ = control.Flush() // the caller may be gone
}

// projectOfPath is the project of .../namespaces/<project>/...; "" is all.
func projectOfPath(r *http.Request) string {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	for i, p := range parts {
		if p == "namespaces" && i+1 < len(parts) {
			return parts[i+1]
		}
	}
	return ""
}

// bounded reads a number within bounds.
func bounded(q url.Values, name string, low, high, otherwise int) (int, error) {
	if !q.Has(name) {
		return otherwise, nil
	}
	n, err := strconv.Atoi(q.Get(name))
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%s=%q is not a number from %d to %d", name, q.Get(name), low, high)
	}
	return n, nil
}

var protocols = map[string]uint8{"": 0, "icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}

// captureOf reads the parameters.
func captureOf(q url.Values, f *facts, project string, sees func(string) bool) (c snapshot.Capture, seconds int, err error) {
	c = snapshot.Capture{ID: strings.ToLower(rand.Text()), Rule: q.Get("rule"), Verdict: q.Get("verdict"), Workload: q.Get("workload")}
	var errs []error
	number := func(name string, low, high, otherwise int) int {
		n, err := bounded(q, name, low, high, otherwise)
		errs = append(errs, err)
		return n
	}
	seconds = number("seconds", 1, maxCaptureTime, defaultTime)
	c.Packets = number("packets", 1, maxPackets, defaultPackets)
	c.Length = number("length", 14, maxLength, defaultLength)
	c.Port = uint16(number("port", 1, 65535, 0))
	protocol, known := protocols[strings.ToLower(q.Get("protocol"))]
	if !known {
		errs = append(errs, fmt.Errorf("protocol=%q is not known; write tcp, udp, sctp or icmp", q.Get("protocol")))
	}
	c.Protocol = protocol
	if v := c.Verdict; v != "" && v != "allow" && v != "deny" {
		errs = append(errs, fmt.Errorf("verdict=%q is not known; write allow or deny", v))
	}
	if p := q.Get("peer"); p != "" {
		a, err := netip.ParseAddr(p)
		if err != nil {
			errs = append(errs, fmt.Errorf("peer=%q is not an address", p))
		}
		c.A = a.Unmap()
	}
	if c.Workload != "" {
		c.Workload = keyIn(project, c.Workload).String()
	}
	trace, err1 := flag(q, "trace")
	probe, err2 := flag(q, "probe")
	errs, c.Trace = append(errs, err1, err2), trace || probe
	c.VNIs = visible(f.in, project, sees)
	if len(c.VNIs) == 0 {
		errs = append(errs, errors.New("the project has no Network with a network id, so there is nothing to see"))
	}
	if err := errors.Join(errs...); err != nil {
		return c, 0, err
	}
	if c.Trace {
		err = traced(&c, q, f, project, probe)
	}
	return c, seconds, err
}

// visible are the network ids that a caller in the project may see: its own,
// and linked ones of projects whose explain he may ask. "" is everything.
func visible(in *compile.Input, project string, sees func(string) bool) []snapshot.VNI {
	found := map[snapshot.VNI]bool{}
	add := func(k compile.Key) {
		n := in.Networks[k]
		if n != nil && n.Status.VNI != 0 && (project == "" || k.Project == project || sees(k.Project)) {
			found[snapshot.VNI(n.Status.VNI)] = true
		}
	}
	for k := range in.Networks {
		if project == "" || k.Project == project {
			add(k)
		}
	}
	if project == "" {
		found[snapshot.Outside] = true
	}
	for lk, l := range in.Links {
		near := false
		var all []compile.Key
		for _, e := range l.Spec.Ends {
			k := compile.Key{Project: cmp.Or(e.Project, lk.Project), Name: e.Network}
			near = near || k.Project == project
			all = append(all, k)
		}
		for _, v := range l.Spec.Via {
			for _, side := range []string{v.Left, v.Right} {
				if side != "" {
					all = append(all, keyIn(lk.Project, side))
				}
			}
		}
		if near {
			for _, k := range all {
				add(k)
			}
		}
	}
	return slices.Sorted(keys(found))
}

// keyIn reads "project/name", or the name of something in the project.
func keyIn(project, ref string) compile.Key {
	if p, name, other := strings.Cut(ref, "/"); other {
		return compile.Key{Project: p, Name: name}
	}
	return compile.Key{Project: project, Name: ref}
}
