package discovery

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/wire"
)

// Watch implements wire.DiscoveryServer.
func (s *Server) Watch(stream wire.Discovery_WatchServer) error {
	node, until, err := s.caller(stream.Context())
	if err != nil {
		return err
	}
	m := s.enter(node)
	defer s.leave(m)
	t := m.watch.take()
	defer t.end()
	w := &watch{
		server: s, member: m, turn: t, stream: stream,
		log:    s.log.With("node", node, "remote", remote(stream.Context())),
		state:  *m.last.Load(),
		deltas: make(chan snapshot.Delta, 1),
		sent:   make(chan progress),
	}
	return w.run(stream.Context(), until)
}

// watch is one Watch stream. run is the loop that owns everything in it.
type watch struct {
	server *Server
	member *member
	turn   *turn
	stream wire.Discovery_WatchServer
	log    *slog.Logger
	state  NodeState // published through member.last

	hello   snapshot.Version   // what the node said that it has
	base    *snapshot.Snapshot // what we know that it has; nil: not known
	settled *wanted            // needs nothing more, acknowledged or refused
	flight  *flight            // on its way, not acknowledged yet; nil: none
	timer   *time.Timer        // of the flight
	sending bool               // the sender has a delta

	deltas chan snapshot.Delta
	sent   chan progress
}

// flight is the one delta that is on its way.
type flight struct {
	wanted *wanted
	reset  bool
}

// progress is told by the sender after each message, and at the end.
type progress struct {
	done bool
	err  error // the delta cannot be sent to anybody
}

func (w *watch) run(ctx context.Context, until time.Time) error {
	if w.turn.over() {
		return errReplaced
	}
	if err := w.stream.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	received := receive(ctx, &w.server.streams, w.stream.Recv)
	if err := w.greet(ctx, received); err != nil {
		return err
	}
	w.server.streams.Go(func() { w.send(ctx) })
	w.timer = time.NewTimer(w.server.cfg.AckTimeout)
	w.timer.Stop()
	defer w.timer.Stop()
	ends := time.NewTimer(time.Until(until))
	defer ends.Stop()

	w.update(func(n *NodeState) { n.Connected, n.Remote = true, remote(ctx) })
	w.log.Info("a node connected", "version", w.hello)
	w.member.felt.Store(time.Now().UnixNano())
	w.server.cfg.Sink.Connected(w.member.node)
	err := w.loop(ctx, received, ends.C)
	w.update(func(n *NodeState) { n.Connected = false })
	w.log.Info("a node's connection ended", "reason", err)
	if !w.turn.over() {
		w.server.cfg.Sink.Gone(w.member.node, w.member.heard())
	}
	return err
}

var (
	errReplaced = status.Error(codes.Aborted, "a newer connection of this node took over; if that is another machine, rename one of them")
	errEnded    = status.Error(codes.Unauthenticated, "the certificate of this connection ended; connect with a new one")
	errStopping = status.Error(codes.Unavailable, "the control plane stops")
)

// greet waits for the hello.
func (w *watch) greet(ctx context.Context, received <-chan message[*wire.FromNode]) error {
	timeout := time.NewTimer(helloTimeout)
	defer timeout.Stop()
	select {
	case m := <-received:
		if m.err != nil {
			return m.err
		}
		v := m.value.GetHello()
		if v == nil || len(v.GetVersion()) > wire.MaxVersion {
			return status.Error(codes.InvalidArgument, "the first message is no hello")
		}
		w.hello = snapshot.Version(v.GetVersion())
		return nil
	case <-timeout.C:
		return status.Error(codes.DeadlineExceeded, "no hello came")
	case <-w.turn.stop:
		return errReplaced
	case <-w.server.stopping:
		return errStopping
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *watch) loop(ctx context.Context, received <-chan message[*wire.FromNode], ends <-chan time.Time) error {
	for {
		w.next()
		select {
		case m := <-received:
			if m.err != nil {
				if errors.Is(m.err, io.EOF) {
					return nil
				}
				return m.err
			}
			if err := w.hear(m.value); err != nil {
				return err
			}
		case p := <-w.sent:
			w.progress(p)
		case <-w.member.changed:
		case <-w.timer.C:
			w.update(func(n *NodeState) { n.Error = "it did not acknowledge in time" })
			return status.Error(codes.DeadlineExceeded, "no acknowledgement came in time")
		case <-ends:
			return errEnded
		case <-w.turn.stop:
			return errReplaced
		case <-w.server.stopping:
			return errStopping
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// next puts the wanted snapshot on its way, if the node does not have it and
// nothing else is on its way.
func (w *watch) next() {
	want := w.member.wanted.Load()
	if want == nil || want == w.settled || w.flight != nil || w.sending {
		return
	}
	if w.base == nil && w.hello != "" && w.hello == want.Version() {
		w.base = want.snap
		w.acked(want)
		return
	}
	base := w.base
	if w.server.cfg.Whole {
		base = nil
	}
	d := snapshot.DiffTo(base, want.snap, want.Version())
	if d.Empty() {
		w.base = want.snap
		w.acked(want)
		return
	}
	w.flight = &flight{wanted: want, reset: d.Reset}
	w.sending = true
	w.timer.Reset(w.server.cfg.AckTimeout)
	w.deltas <- d // has room: the sender is idle
}

// acked: the node has it.
func (w *watch) acked(want *wanted) {
	w.settled = want
	v := want.Version()
	if w.state.Acked == v && w.state.Error == "" {
		return
	}
	w.update(func(n *NodeState) { n.Acked, n.Error = v, "" })
	w.server.cfg.Sink.Acked(w.member.node, v, false, "")
}

// send is the sender's loop: a node that reads slowly holds up nothing else.
func (w *watch) send(ctx context.Context) {
	for {
		var d snapshot.Delta
		select {
		case d = <-w.deltas:
		case <-ctx.Done():
			return
		}
		var broken error // the stream, whose end the loop hears of anyway
		err := wire.FromDelta(&d, func(m *wire.Delta) error {
			if broken = w.stream.Send(m); broken == nil {
				w.tell(ctx, progress{})
			}
			return broken
		})
		if broken != nil {
			return
		}
		w.tell(ctx, progress{done: true, err: err})
	}
}

func (w *watch) tell(ctx context.Context, p progress) {
	select {
	case w.sent <- p:
	case <-ctx.Done():
	}
}

func (w *watch) progress(p progress) {
	if w.flight != nil {
		w.timer.Reset(w.server.cfg.AckTimeout)
	}
	w.sending = w.sending && !p.done
	if p.err == nil || w.flight == nil {
		return
	}
	text := "cannot be sent: " + p.err.Error()
	v := w.flight.wanted.Version()
	w.log.Error("a snapshot cannot be sent", "version", v, "error", p.err)
	w.land(w.flight.wanted)
	w.update(func(n *NodeState) { n.Error = text })
	w.server.cfg.Sink.Acked(w.member.node, v, false, text)
}

// land ends the flight.
func (w *watch) land(settled *wanted) {
	w.settled, w.flight = settled, nil
	w.timer.Stop()
}

func (w *watch) hear(m *wire.FromNode) error {
	w.update(func(*NodeState) {})
	if m.GetHello() != nil {
		return status.Error(codes.InvalidArgument, "a second hello")
	}
	if r := m.GetReport(); r != nil {
		w.report(r)
	}
	if len(m.GetCaptured()) > 0 {
		cs, err := wire.ToCaptured(w.member.node, m.GetCaptured())
		if err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		w.server.cfg.Sink.Captured(w.member.node, cs)
	}
	if a := m.GetAck(); a != nil {
		if a.GetVersion() == "" || len(a.GetVersion()) > wire.MaxVersion {
			return status.Error(codes.InvalidArgument, "an acknowledgement of no version")
		}
		v, errText := snapshot.Version(a.GetVersion()), shorten(a.GetError())
		if a.GetReceipt() {
			w.receipt(v, errText)
		} else {
			w.applied(v, a.GetApplied(), errText)
		}
	}
	return nil
}

func (w *watch) report(in *wire.Report) {
	r, err := wire.ToReport(w.member.node, in)
	if err != nil {
		// The node still gets what it must be; only what it says is lost.
		w.log.Error("a report was refused", "error", err)
		w.update(func(n *NodeState) { n.Error = "its report was refused: " + err.Error() })
		return
	}
	w.server.cfg.Sink.Report(w.member.node, r)
}

// receipt: the flight arrived, or could not be taken.
func (w *watch) receipt(v snapshot.Version, errText string) {
	f := w.flight
	if f == nil || v != f.wanted.Version() {
		w.log.Warn("a node answered a delta that is not on its way", "version", v)
		return
	}
	if errText == "" {
		w.land(nil)
		w.base = f.wanted.snap
		w.acked(f.wanted)
		return
	}
	w.log.Warn("a node refused a delta", "version", v, "reset", f.reset, "error", errText)
	if f.reset {
		w.land(f.wanted) // the same again would not help
	} else {
		w.land(nil) // once more, as a whole
	}
	w.base, w.hello = nil, ""
	w.update(func(n *NodeState) { n.Error = errText })
	w.server.cfg.Sink.Acked(w.member.node, v, false, errText)
}

// applied: a version is in the node's kernel, or why not.
func (w *watch) applied(v snapshot.Version, applied bool, errText string) {
	if errText != "" {
		w.log.Warn("a node cannot apply a version", "version", v, "error", errText)
		w.update(func(n *NodeState) { n.Error = errText })
	} else if applied {
		w.update(func(n *NodeState) { n.Applied, n.Error = v, "" })
	}
	w.server.cfg.Sink.Acked(w.member.node, v, applied, errText)
}

// update changes the published state; the node was just heard of.
func (w *watch) update(change func(*NodeState)) {
	w.state.LastSeen = time.Now()
	change(&w.state)
	s := w.state
	w.member.last.Store(&s)
}

// shorten makes a node's reason fit for logs and tables.
func shorten(s string) string {
	if len(s) > wire.MaxError {
		s = s[:wire.MaxError]
	}
	return strings.ToValidUTF8(s, "?")
}
