package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"moire.dev/moire/snapshot"
)

// maxRelayed bounds the question of another process, in bytes.
const maxRelayed = 64 << 10

// peer is another process of the control plane that lives: nodes that are
// connected there are captured there.
type peer struct {
	name string
	url  string // of its API
	do   func(*http.Request) (*http.Response, error)
}

// relayed is what one process asks another.
type relayed struct {
	Capture snapshot.Capture
	Seconds int
}

// isAdministrator: the control plane itself is one, and so is who has its
// kubeconfig.
func isAdministrator(r *http.Request) bool {
	who, ok := request.UserFrom(r.Context())
	return ok && slices.Contains(who.GetGroups(), user.SystemPrivilegedGroup)
}

// relayedCapture reads the question of another process, which has checked it.
func relayedCapture(r *http.Request) (snapshot.Capture, int, error) {
	var q relayed
	if err := json.NewDecoder(io.LimitReader(r.Body, maxRelayed)).Decode(&q); err != nil {
		return q.Capture, 0, fmt.Errorf("the relayed capture cannot be read: %w", err)
	}
	if q.Capture.ID == "" || q.Seconds < 1 || q.Seconds > maxCaptureTime || q.Capture.Packets < 1 || q.Capture.Packets > maxPackets {
		return q.Capture, 0, errors.New("the relayed capture is out of bounds")
	}
	return q.Capture, q.Seconds, nil
}

// relay asks every other process for the same, and mixes what it sees into
// ours, until running is done. A process that does not answer leaves a gap,
// which is logged. It returns when all have begun, or a moment later.
func (h capturesHandler) relay(ctx context.Context, c *capturing, seconds int, running *sync.WaitGroup) {
	var begun sync.WaitGroup
	for _, p := range h.peers() {
		begun.Add(1)
		running.Go(func() {
			started := sync.OnceFunc(begun.Done)
			defer started()
			if err := h.relayTo(ctx, p, c, seconds, started); err != nil && ctx.Err() == nil {
				h.loop.log.Warn("a capture lacks what is seen by the nodes of another control plane", "process", p.name, "error", err)
			}
		})
	}
	all := make(chan struct{})
	go func() { begun.Wait(); close(all) }() // ends with the relays, at the latest
	late := time.NewTimer(startWait)
	defer late.Stop()
	select {
	case <-all:
	case <-late.C:
	case <-ctx.Done():
	}
}

func (h capturesHandler) relayTo(ctx context.Context, p peer, c *capturing, seconds int, started func()) error {
	body, err := json.Marshal(relayed{Capture: c.what, Seconds: seconds})
	if err != nil {
		return err
	}
	place := "/apis/moire.dev/v1alpha1/captures"
	if c.project != "" { // it counts as one of that project there, too
		place = "/apis/moire.dev/v1alpha1/namespaces/" + c.project + "/captures"
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+place+"?relay=1", bytes.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := p.do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("it says %s", answer.Status)
	}
	started()
	for d := json.NewDecoder(answer.Body); ; {
		var line struct {
			snapshot.Captured
			Missed uint64 `json:"missed"`
		}
		if err := d.Decode(&line); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		h.publisher.mu.Lock()
		if line.Missed > 0 {
			c.missed += line.Missed
		} else {
			c.take(line.Captured)
		}
		h.publisher.mu.Unlock()
	}
}

// peers are the other processes that live.
func (c *Control) peers() []peer {
	var out []peer
	for name, url := range c.keeper.others() {
		out = append(out, peer{name: name, url: url, do: c.store.Peer})
	}
	return out
}

// apiURL is where other processes reach our API, which listens at host.
func (c Config) apiURL(host string) (string, error) {
	u, err := url.Parse(host)
	if err != nil {
		return "", err
	}
	name := u.Hostname()
	if listen, _, err := net.SplitHostPort(c.APIListen); err == nil && listen != "" {
		if a, err := netip.ParseAddr(listen); err != nil || !a.IsUnspecified() {
			name = listen
		}
	}
	if len(c.AdvertiseAddresses) > 0 {
		name = c.AdvertiseAddresses[0]
	}
	return "https://" + net.JoinHostPort(name, u.Port()), nil
}
