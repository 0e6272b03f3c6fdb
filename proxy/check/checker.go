package check

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// Checker asks the endpoints of one cluster. Set its fields before Run.
type Checker struct {
	Check l7.Check
	// HTTP2 to the endpoints, with prior knowledge when there is no TLS (RFC 9113
	// 3.3). Kind grpc always speaks it.
	HTTP2 bool
	// TLS to the endpoints; nil: none. It is cloned. Without a ServerName the
	// certificate must be for the endpoint's address.
	TLS *tls.Config
	// Report is called when an endpoint was asked for the first time and whenever
	// it becomes well or unwell, from many goroutines; why is empty when well.
	Report func(address string, well bool, why string)

	mu      sync.Mutex
	changed chan struct{}
	targets []string
}

// Endpoints that are asked from now on. Those that stay keep their history; it
// may be called at any time.
func (c *Checker) Endpoints(addresses []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.targets = append([]string(nil), addresses...)
	c.signal()
}

// signal that targets changed. The lock is held.
func (c *Checker) signal() {
	if c.changed != nil {
		close(c.changed)
	}
	c.changed = make(chan struct{})
}

func (c *Checker) snapshot() ([]string, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changed == nil {
		c.signal()
	}
	return c.targets, c.changed
}

// Run asks until ctx ends, and returns when nobody is asked any more: nil, or an
// error when the Check cannot be.
func (c *Checker) Run(ctx context.Context) error {
	ask, err := c.asker()
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	defer group.Wait()
	running := map[string]context.CancelFunc{}
	defer func() {
		for _, stop := range running {
			stop()
		}
	}()
	for {
		targets, changed := c.snapshot()
		wanted := map[string]bool{}
		for _, address := range targets {
			wanted[address] = true
			if running[address] != nil {
				continue
			}
			one, stop := context.WithCancel(ctx)
			running[address] = stop
			group.Go(func() { c.watch(one, address, ask) })
		}
		for address, stop := range running {
			if !wanted[address] {
				stop()
				delete(running, address)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// ask one endpoint; nil: it is well.
type ask func(ctx context.Context, address string) error

func (c *Checker) asker() (ask, error) {
	switch c.Check.Kind {
	case "http":
		return c.askHTTP, nil
	case "grpc":
		return c.askGRPC, nil
	case "tcp":
		return c.askTCP, nil
	}
	return nil, fmt.Errorf("check.kind %q is none of http, grpc, tcp", c.Check.Kind)
}

// watch asks one endpoint until ctx ends. The first answer counts at once;
// after that it takes some in a row.
func (c *Checker) watch(ctx context.Context, address string, ask ask) {
	interval := max(c.Check.Interval.Or(5*time.Second), time.Millisecond)
	timeout := max(c.Check.Timeout.Or(time.Second), time.Millisecond)
	state := verdict{rise: c.Check.Healthy, fall: c.Check.Failed}.defaults()
	// Endpoints are not all asked at one instant: the first time within a tenth
	// of the interval.
	wait := time.NewTimer(rand.N(interval/10 + 1))
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		try, stop := context.WithTimeout(ctx, timeout)
		err := ask(try, address)
		stop()
		if ctx.Err() != nil {
			return
		}
		if state.take(err == nil) {
			why := ""
			if err != nil {
				why = err.Error()
			}
			c.Report(address, err == nil, why)
		}
		wait.Reset(interval*9/10 + rand.N(interval/5+1))
	}
}

// verdict is what one endpoint is held for.
type verdict struct {
	rise, fall int // how many in a row change it
	known      bool
	well       bool
	row        int // answers in a row that say otherwise
}

func (v verdict) defaults() verdict {
	if v.rise <= 0 {
		v.rise = 2
	}
	if v.fall <= 0 {
		v.fall = 3
	}
	return v
}

// take an answer in, and say whether the verdict is new.
func (v *verdict) take(ok bool) bool {
	if !v.known {
		v.known, v.well = true, ok
		return true
	}
	if ok == v.well {
		v.row = 0
		return false
	}
	v.row++
	if ok && v.row < v.rise || !ok && v.row < v.fall {
		return false
	}
	v.well, v.row = ok, 0
	return true
}

// dial for one question.
func (c *Checker) dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

// askTCP: a connection can be made, and with TLS a handshake.
func (c *Checker) askTCP(ctx context.Context, address string) error {
	conn, err := c.dial(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if c.TLS == nil {
		return nil
	}
	config := c.TLS.Clone()
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(address)
	}
	return tls.Client(conn, config).HandshakeContext(ctx)
}
