package door

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/snapshot/l7"
)

// noConfig is sent where there is none yet.
var noConfig = &l7.Config{}

// Served is what is behind the proxy's end of the door.
type Served interface {
	// Serve makes s what is served. When it returns nil the descriptors in s belong
	// to the one that is served, who closes them once a later State has them no
	// more: told by the pointer. An error says why all stays as it was.
	Serve(s State) error
	// Alive returns nil when the loop of every worker has turned, or the error of ctx.
	Alive(ctx context.Context) error
	// Ejected endpoints now.
	Ejected() []Ejection
	// Drain: another process serves. It returns at once.
	Drain()
}

// ProxyOptions of a Proxy; Path and Served are needed.
type ProxyOptions struct {
	// Path of the agent's socket.
	Path   string
	Served Served
	// Workers that serve, and the Version of the program, for the agent to know.
	Workers int
	Version string
	Log     *slog.Logger // default slog.Default()
}

// Proxy is the proxy's end of the door.
type Proxy struct {
	o        ProxyOptions
	draining atomic.Bool
	// held are the descriptors that came in the connection that is up, by
	// namespace; given are those of them, by pointer, that Served has.
	held  map[string]*Sockets
	given map[*Sockets]bool
}

const (
	// beat is how often a sign of life is given.
	beat = 300 * time.Millisecond
	// again is how long after a failure the agent is looked for.
	again = 100 * time.Millisecond
)

// NewProxy makes a Proxy. It connects to nobody: see Run.
func NewProxy(o ProxyOptions) *Proxy {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return &Proxy{o: o, given: map[*Sockets]bool{}}
}

// Run does what the agent says until ctx ends. While there is no agent, what is
// served stays.
func (p *Proxy) Run(ctx context.Context) error {
	var last string
	for ctx.Err() == nil {
		err := p.visit(ctx)
		if ctx.Err() != nil {
			break
		}
		if text := err.Error(); text != last {
			p.o.Log.Warn("no agent; what is served stays", "door", p.o.Path, "error", err)
			last = text
		}
		select {
		case <-ctx.Done():
		case <-time.After(again):
		}
	}
	return nil
}

// visit is one connection to the agent.
func (p *Proxy) visit(ctx context.Context) error {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: p.o.Path, Net: "unix"})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := trusted(c); err != nil {
		return err
	}
	return p.attend(ctx, c)
}

// attend does what the agent at the other end of c says.
func (p *Proxy) attend(ctx context.Context, c *net.UnixConn) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	var writing sync.Mutex
	write := func(k kind, body any) error {
		b, err := frame(k, body)
		if err != nil {
			return err
		}
		writing.Lock()
		defer writing.Unlock()
		_, err = c.Write(b)
		return err
	}
	if err := write(helloFrame, hello{protocol, os.Getpid(), p.o.Workers, p.o.Version, p.draining.Load()}); err != nil {
		return err
	}
	p.held = map[string]*Sockets{}
	r := newReader(c)
	defer func() {
		r.close()
		p.letGo(p.held)
	}()
	begun := false
	for {
		k, body, err := r.next()
		if err == io.EOF {
			return errors.New("the agent closed the connection")
		}
		if err != nil {
			return err
		}
		if err := p.take(r, k, body, write); err != nil {
			return fmt.Errorf("what the agent sent is not understood: %w", err)
		}
		if k == configFrame && !begun { // before, there is nothing to be alive for
			begun = true
			running.Go(func() { p.beat(ctx, write) })
		}
	}
}

func (p *Proxy) take(r *reader, k kind, body []byte, write func(kind, any) error) error {
	switch k {
	case socketsFrame:
		var v sockets
		if err := json.Unmarshal(body, &v); err != nil {
			return err
		}
		return p.receive(r, v)
	case goneFrame:
		var v gone
		if err := json.Unmarshal(body, &v); err != nil {
			return err
		}
		p.letGo(map[string]*Sockets{v.Namespace: p.held[v.Namespace]})
		delete(p.held, v.Namespace)
		return nil
	case configFrame:
		number, cfg, err := decodeConfig(body)
		if err != nil {
			return err
		}
		return write(answerFrame, p.serve(number, cfg))
	case drainFrame:
		p.draining.Store(true)
		p.o.Served.Drain()
		return nil
	}
	return fmt.Errorf("a message of kind %d", k)
}

// receive takes descriptors of a namespace.
func (p *Proxy) receive(r *reader, v sockets) error {
	if v.Outbound < 0 || v.Inbound < 0 {
		return errors.New("a number of descriptors is negative")
	}
	s := p.held[v.Namespace]
	n := v.Outbound + v.Inbound
	if v.Itself {
		n++
	}
	if (s == nil) != v.Itself {
		return fmt.Errorf("sockets of namespace %s came without the namespace, or twice", v.Namespace)
	}
	fds, err := r.takeFDs(n)
	if err != nil {
		return err
	}
	if s == nil {
		s = &Sockets{Namespace: fds[0]}
		fds = fds[1:]
		p.held[v.Namespace] = s
	}
	s.Outbound = append(s.Outbound, fds[:v.Outbound]...)
	s.Inbound = append(s.Inbound, fds[v.Outbound:]...)
	return nil
}

// serve hands a State over and says what came of it.
func (p *Proxy) serve(number uint64, cfg *l7.Config) answer {
	s := State{Config: cfg, Sockets: maps.Clone(p.held)}
	if err := p.o.Served.Serve(s); err != nil {
		p.o.Log.Error("the agent's configuration cannot be used; the old one stays", "number", number, "error", err)
		return answer{Number: number, Refused: err.Error()}
	}
	clear(p.given)
	for _, has := range s.Sockets {
		p.given[has] = true
	}
	p.o.Log.Debug("configuration applied", "number", number)
	return answer{Number: number}
}

// letGo closes descriptors that Served does not have.
func (p *Proxy) letGo(all map[string]*Sockets) {
	for _, s := range all {
		if s != nil && !p.given[s] {
			unix.Close(s.Namespace)
			closeFDs(s.Outbound)
			closeFDs(s.Inbound)
		}
	}
}

// beat gives signs of life.
func (p *Proxy) beat(ctx context.Context, write func(kind, any) error) {
	for {
		if p.o.Served.Alive(ctx) != nil || write(aliveFrame, alive{p.o.Served.Ejected()}) != nil {
			return // the reader finds out, too
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(beat):
		}
	}
}
