package health

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"moire.dev/moire/snapshot"
)

// probe does one check.
func probe(ctx context.Context, c *Config, k snapshot.CheckKey) error {
	device := c.Device(k.Addr.VNI)
	if device == "" {
		return fmt.Errorf("this node is not in network %d yet", k.Addr.VNI)
	}
	switch k.Kind {
	case "icmp":
		return echo(ctx, c, device, k.Addr.IP)
	case "tcp":
		conn, err := dial(ctx, c, device, k)
		if err != nil {
			return err
		}
		return conn.Close()
	case "http":
		return get(ctx, c, device, k)
	case "grpc":
		return serving(ctx, c, device, k)
	}
	return fmt.Errorf("this node knows no check %q", k.Kind)
}

func (c *Config) source(to netip.Addr) netip.Addr {
	if to.Is4() {
		return c.Source4
	}
	return c.Source6
}

// bound makes every socket stay in one Network.
func bound(device string) func(network, address string, raw syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		var err error
		ctrl := raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) })
		return errors.Join(ctrl, err)
	}
}

func dial(ctx context.Context, c *Config, device string, k snapshot.CheckKey) (conn net.Conn, err error) {
	d := net.Dialer{Control: bound(device), LocalAddr: &net.TCPAddr{IP: c.source(k.Addr.IP).AsSlice()}}
	to := netip.AddrPortFrom(k.Addr.IP, k.Port).String()
	in := c.In(func() error {
		conn, err = d.DialContext(ctx, "tcp", to)
		return nil
	})
	if in != nil {
		return nil, in
	}
	if err != nil {
		return nil, plain(err)
	}
	return conn, nil
}

// plain leaves out of an error what differs from one time to the next, such as
// the port of our side.
func plain(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if call, ok := errors.AsType[syscall.Errno](err); ok {
		return call
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return errTimeout
	}
	return err
}

var (
	errTimeout = errors.New("no answer in time")
	errEnded   = errors.New("the connection ended")
)

// unverified is TLS to whatever certificate is shown: a check asks whether
// somebody answers, not who. host is asked for, when there is one.
func unverified(host string) *tls.Config {
	return &tls.Config{ServerName: host, InsecureSkipVerify: true}
}

// get asks by HTTP for one of the statuses; by default what is neither success nor
// redirection is a failure.
func get(ctx context.Context, c *Config, device string, k snapshot.CheckKey) error {
	t := &http.Transport{
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, c, device, k) },
	}
	defer t.CloseIdleConnections()
	path := k.Path
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	scheme := "http://"
	if k.TLS {
		scheme, t.TLSClientConfig = "https://", unverified(k.Host)
	}
	url := scheme + net.JoinHostPort(k.Addr.IP.String(), strconv.Itoa(int(k.Port))) + path
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	q.Host = k.Host // "" is that of the URL
	q.Header.Set("User-Agent", agent)
	resp, err := t.RoundTrip(q)
	if err != nil {
		return plain(err)
	}
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, 64<<10); err != nil && !errors.Is(err, io.EOF) {
		return plain(err)
	}
	if !well(k.Statuses, resp.StatusCode) {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

// well says whether a status is one of those that are well.
func well(statuses string, status int) bool {
	if statuses == "" {
		return status >= 200 && status <= 399
	}
	return slices.Contains(strings.Split(statuses, ","), strconv.Itoa(status))
}

// agent is how checks call themselves.
const agent = "moire-health"

// serving asks by gRPC (grpc.health.v1).
func serving(ctx context.Context, c *Config, device string, k snapshot.CheckKey) error {
	secure := insecure.NewCredentials()
	if k.TLS {
		secure = credentials.NewTLS(unverified(""))
	}
	raw, err := dial(ctx, c, device, k)
	if err != nil {
		return err
	}
	defer raw.Close()
	once := make(chan net.Conn, 1)
	once <- raw
	conn, err := grpc.NewClient("passthrough:///"+raw.RemoteAddr().String(), grpc.WithTransportCredentials(secure), grpc.WithUserAgent(agent),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			select {
			case c := <-once:
				return c, nil
			default:
				return nil, errEnded
			}
		}))
	if err != nil {
		return err
	}
	defer conn.Close()
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: k.Service})
	if err != nil {
		return fmt.Errorf("gRPC %s", status.Code(err)) // the words differ from one time to the next
	}
	if s := answer.GetStatus(); s != grpc_health_v1.HealthCheckResponse_SERVING {
		return errors.New("it is " + s.String())
	}
	return nil
}

// echo sends an echo request and waits for its answer.
func echo(ctx context.Context, c *Config, device string, to netip.Addr) error {
	network, proto := "ip4:icmp", 1
	var ask, answer icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if to.Is6() {
		network, proto = "ip6:ipv6-icmp", 58
		ask, answer = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	// Every raw socket hears all answers on its device: the id says whose it is.
	id, body := rand.IntN(1<<16), binary.BigEndian.AppendUint64(nil, rand.Uint64())
	m, err := (&icmp.Message{Type: ask, Body: &icmp.Echo{ID: id, Seq: 1, Data: body}}).Marshal(nil)
	if err != nil {
		return err
	}
	var conn net.PacketConn
	in := c.In(func() error {
		l := net.ListenConfig{Control: bound(device)}
		conn, err = l.ListenPacket(ctx, network, c.source(to).String())
		return err
	})
	if in != nil {
		return plain(in)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.WriteTo(m, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return plain(err)
	}
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return plain(err)
		}
		who, _ := netip.AddrFromSlice(from.(*net.IPAddr).IP)
		got, err := icmp.ParseMessage(proto, buf[:n])
		if err != nil || who.Unmap() != to || got.Type != answer {
			continue
		}
		if e, ok := got.Body.(*icmp.Echo); ok && e.ID == id && string(e.Data) == string(body) {
			return nil
		}
	}
}
