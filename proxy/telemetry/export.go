package telemetry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

const (
	// exportTries of one chunk, at most.
	exportTries = 5
	// exportPause before the second try, doubled each time up to exportPauseMost,
	// or what the collector asks for up to that.
	exportPause     = 250 * time.Millisecond
	exportPauseMost = 5 * time.Second
	exportTimeout   = 10 * time.Second
)

// format of spans.
type format interface {
	contentType() string
	append(dst []byte, k *told) (grown []byte, n int)
	body(spans []byte) []byte
	// rejected spans, of the body of an answer that says success.
	rejected(answer []byte) int
}

// exporter is an outlet that posts to a collector.
func (t *Telemetry) exporter(which int, url string, f format) *outlet {
	o := newOutlet(outletNames[which], &t.outletCounts[which], t.o.Log)
	o.append = f.append
	transport := &http.Transport{MaxIdleConns: 1, IdleConnTimeout: time.Minute, DisableCompression: true}
	p := &poster{url: url, f: f, pause: exportPause, client: &http.Client{Transport: transport, Timeout: exportTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	o.deliver, o.close = p.deliver, transport.CloseIdleConnections
	return o
}

// poster posts chunks, and again where the answer says that this may help.
type poster struct {
	url    string
	f      format
	client *http.Client
	pause  time.Duration
}

func (p *poster) deliver(ctx context.Context, c chunk) (int, error) {
	body := p.f.body(c.b)
	pause := p.pause
	for try := 1; ; try++ {
		rejected, again, wait, err := p.post(ctx, body)
		switch {
		case err == nil:
			return max(c.n-rejected, 0), nil
		case !again || try == exportTries:
			return 0, err
		}
		jittered := pause/2 + rand.N(pause/2+1)
		pause = min(2*pause, exportPauseMost)
		timer := time.NewTimer(min(max(jittered, wait), exportPauseMost))
		select {
		case <-ctx.Done():
			timer.Stop()
			return 0, err
		case <-timer.C:
		}
	}
}

// post says how many spans were rejected or, with an error, whether to try
// again and how long to wait at least.
func (p *poster) post(ctx context.Context, body []byte) (rejected int, again bool, wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return 0, false, 0, err
	}
	req.Header.Set("Content-Type", p.f.contentType())
	req.Header.Set("User-Agent", "moire-proxy")
	res, err := p.client.Do(req)
	if err != nil {
		return 0, ctx.Err() == nil, 0, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if res.StatusCode/100 == 2 {
		if err != nil {
			return 0, false, 0, nil // it was taken
		}
		return p.f.rejected(answer), false, 0, nil
	}
	switch res.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		again = true
	}
	if s, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && s > 0 {
		wait = time.Duration(min(s, 3600)) * time.Second
	}
	return 0, again, wait, fmt.Errorf("%s answers %s", req.URL.Redacted(), res.Status)
}
