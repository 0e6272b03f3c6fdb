package ipfix

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"moire.dev/moire/flow/record"
)

// Limits and times.
const (
	maxQueue     = 16384
	maxMessage   = 1400 // fits one packet of the underlay
	maxSessions  = 65536
	repeat       = time.Minute // of templates, over UDP
	dialTimeout  = 3 * time.Second
	writeTimeout = 3 * time.Second
	minPause     = time.Second
	maxPause     = 30 * time.Second
)

// Config of an Exporter.
type Config struct {
	// Collector is udp://host:port or tcp://host:port; port 4739 when there is
	// none.
	Collector string
	// Domain is the observation domain id. Default: 1.
	Domain uint32
	// Log. Default: slog.Default().
	Log *slog.Logger
}

// Exporter sends records to one collector.
type Exporter struct {
	cfg              Config
	network, address string
	lost             atomic.Uint64
	wake             chan struct{}

	mu    sync.Mutex
	queue []record.Record
}

// New checks the configuration; Run starts.
func New(cfg Config) (*Exporter, error) {
	u, err := url.Parse(cfg.Collector)
	if err != nil || (u.Scheme != "udp" && u.Scheme != "tcp") || u.Hostname() == "" || u.Path != "" {
		return nil, fmt.Errorf("IPFIX collector %q: write udp://host:port or tcp://host:port", cfg.Collector)
	}
	port := u.Port()
	if port == "" {
		port = "4739"
	}
	if cfg.Domain == 0 {
		cfg.Domain = 1
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &Exporter{cfg: cfg, network: u.Scheme, address: net.JoinHostPort(u.Hostname(), port), wake: make(chan struct{}, 1)}, nil
}

// Add takes records to send. It never waits; what there is no room for is lost.
func (e *Exporter) Add(rs []record.Record) {
	e.mu.Lock()
	for i := range rs {
		if rs[i].Kind == record.Started {
			continue // nothing is counted yet
		}
		if len(e.queue) >= maxQueue {
			e.lost.Add(uint64(len(rs) - i))
			break
		}
		e.queue = append(e.queue, rs[i])
	}
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Lost counts records that could not be sent.
func (e *Exporter) Lost() uint64 { return e.lost.Load() }

// Run sends until ctx ends.
func (e *Exporter) Run(ctx context.Context) error {
	pause := minPause
	for ctx.Err() == nil {
		err := e.session(ctx)
		if ctx.Err() != nil {
			break
		}
		e.cfg.Log.Warn("the IPFIX collector cannot be reached; records for it are dropped when too many wait", "collector", e.cfg.Collector, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
	return nil
}

// session is one connection.
func (e *Exporter) session(ctx context.Context) error {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, e.network, e.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	w := newWriter(conn, e.cfg.Domain)
	tick := time.NewTicker(repeat)
	defer tick.Stop()
	for {
		if err := w.send(e.take()); err != nil {
			e.lost.Add(uint64(w.waiting))
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-e.wake:
		case <-tick.C:
			w.templates = w.templates && e.network == "tcp"
		}
	}
}

func (e *Exporter) take() []record.Record {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := e.queue
	e.queue = nil
	return out
}

// counters of a session at its last record.
type counters struct{ packets, bytes, replyPackets, replyBytes uint64 }

// writer makes messages of records on one connection.
type writer struct {
	conn      net.Conn
	domain    uint32
	sequence  uint32 // data records sent so far
	templates bool   // were sent
	four, six []element
	sessions  map[string]counters
	waiting   int // records of the send that goes on
}

func newWriter(conn net.Conn, domain uint32) *writer {
	return &writer{conn: conn, domain: domain, four: elementsOf(false), six: elementsOf(true), sessions: map[string]counters{}}
}

// send writes all records, as few messages as may be.
func (w *writer) send(rs []record.Record) error {
	w.waiting = len(rs)
	if !w.templates {
		b := w.header()
		b = appendTemplate(b, template4, w.four)
		b = appendTemplate(b, template6, w.six)
		if err := w.write(b, 0); err != nil {
			return err
		}
		w.templates = true
	}
	var b []byte
	set, count := -1, uint32(0)
	var id uint16
	flush := func() error {
		if count == 0 {
			return nil
		}
		binary.BigEndian.PutUint16(b[set+2:], uint16(len(b)-set))
		err := w.write(b, count)
		b, set, count = nil, -1, 0
		return err
	}
	for i := range rs {
		want, data := w.encode(&rs[i])
		if count > 0 && (want != id || len(b)+len(data) > maxMessage) {
			if err := flush(); err != nil {
				return err
			}
		}
		if count == 0 {
			b, id = w.header(), want
			set = len(b)
			b = u16(u16(b, id), 0)
		}
		b = append(b, data...)
		count++
	}
	return flush()
}

// encode makes the data record of one record.
func (w *writer) encode(r *record.Record) (template uint16, data []byte) {
	f := flow{Record: *r, natSource: address(r.TranslatedSource), natDestination: address(r.TranslatedDestination)}
	was := w.sessions[r.ID]
	now := counters{r.ForwardPackets, r.ForwardBytes, r.ReplyPackets, r.ReplyBytes}
	f.packets, f.bytes = since(now.packets, was.packets), since(now.bytes, was.bytes)
	f.replyPackets, f.replyBytes = since(now.replyPackets, was.replyPackets), since(now.replyBytes, was.replyBytes)
	if r.Kind == record.Update {
		w.remember(r.ID, now)
	} else {
		delete(w.sessions, r.ID)
	}
	elements, template := w.four, uint16(template4)
	if a := r.Source.Address.Unmap(); a.Is6() {
		elements, template = w.six, template6
	}
	for _, e := range elements {
		data = e.put(data, &f)
	}
	return template, data
}

// remember keeps what was told of a session. When there are too many, another
// one is forgotten: its next record counts from its start again.
func (w *writer) remember(id string, now counters) {
	if _, known := w.sessions[id]; !known && len(w.sessions) >= maxSessions {
		for other := range w.sessions {
			delete(w.sessions, other)
			break
		}
	}
	w.sessions[id] = now
}

// since never goes below zero: a session that began anew counts from there.
func since(now, was uint64) uint64 {
	if now < was {
		return now
	}
	return now - was
}

// header leaves room for the length and the sequence number.
func (w *writer) header() []byte {
	b := u16(nil, version)
	b = u16(b, 0)
	b = u32(b, uint32(time.Now().Unix()))
	b = u32(b, w.sequence)
	return u32(b, w.domain)
}

func (w *writer) write(b []byte, records uint32) error {
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	if err := w.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := w.conn.Write(b); err != nil {
		return err
	}
	w.sequence += records
	w.waiting -= int(records)
	return nil
}
