package workloadapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Namespace is a network namespace. It stays the same one as long as somebody
// holds it open.
type Namespace struct{ Device, Inode uint64 }

// caller is the other end of a connection.
type caller struct {
	credentials.CommonAuthInfo
	namespace Namespace
}

// AuthType implements credentials.AuthInfo.
func (caller) AuthType() string { return "netns" }

func callerOf(ctx context.Context) (caller, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return caller{}, false
	}
	c, ok := p.AuthInfo.(caller)
	return c, ok
}

// attesting is the credentials of the server: the kernel says who connects.
type attesting struct {
	limit *limit
	log   *slog.Logger
}

// ServerHandshake implements credentials.TransportCredentials.
func (a attesting) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, who, err := a.attest(raw)
	if err != nil {
		a.log.Debug("a caller of the Workload API is refused", "error", err)
		return nil, nil, errors.Join(err, raw.Close())
	}
	return conn, who, nil
}

func (a attesting) attest(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	u, ok := raw.(*net.UnixConn)
	if !ok {
		return nil, nil, errors.New("not a unix socket")
	}
	netns, err := namespaceOf(u)
	if err != nil {
		return nil, nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(netns.Fd()), &st); err != nil {
		return nil, nil, errors.Join(err, netns.Close())
	}
	ns := Namespace{uint64(st.Dev), st.Ino} //nolint:unconvert // Dev is 32 bits wide on some machines
	if !a.limit.enter(ns) {
		return nil, nil, errors.Join(errors.New("too many connections"), netns.Close())
	}
	held := &holding{Conn: raw, close: sync.OnceFunc(func() {
		a.limit.leave(ns)
		_ = netns.Close() // it was never written to
	})}
	return held, caller{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, namespace: ns}, nil
}

// holding keeps the namespace of the caller open, so that its number is nobody
// else's while the connection lives.
type holding struct {
	net.Conn
	close func()
}

// Close implements net.Conn.
func (h *holding) Close() error {
	h.close()
	return h.Conn.Close()
}

// ioctl of a pidfd that opens the network namespace of its process, since Linux
// 6.11.
const pidfdGetNetNamespace = 0xff04

// namespaceOf opens the network namespace of the process that connected. A pidfd
// is that process and no later one of the same number: the kernel gives one for
// the socket itself (SO_PEERPIDFD, Linux 6.5), and opens the namespace by it.
// On older kernels the namespace is opened by number and counts only if the
// process was alive afterwards: then the number was its own all the time.
func namespaceOf(c *net.UnixConn) (netns *os.File, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	ctrl := raw.Control(func(fd uintptr) { netns, err = namespaceOfSocket(int(fd)) })
	if ctrl != nil {
		err = ctrl
	}
	return netns, err
}

func namespaceOfSocket(socket int) (*os.File, error) {
	cred, err := unix.GetsockoptUcred(socket, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, fmt.Errorf("who connects cannot be found out: %w", err)
	}
	if cred.Pid == 0 {
		return nil, errors.New("who connects is in a process namespace that this node does not see")
	}
	pidfd, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if errors.Is(err, unix.ENOPROTOOPT) {
		pidfd, err = unix.PidfdOpen(int(cred.Pid), 0)
	}
	if err != nil {
		return nil, fmt.Errorf("the process that connected has ended: %w", err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.IoctlRetInt(pidfd, pidfdGetNetNamespace)
	if err == nil {
		return os.NewFile(uintptr(fd), "netns"), nil
	}
	if !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) {
		return nil, fmt.Errorf("the network namespace of the process that connected: %w", err)
	}
	return namespaceByNumber(int(cred.Pid), pidfd)
}

// namespaceByNumber is for kernels that do not open it by the pidfd.
func namespaceByNumber(pid, pidfd int) (*os.File, error) {
	netns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		return nil, err
	}
	if err := alive(pidfd); err != nil {
		return nil, errors.Join(err, netns.Close())
	}
	return netns, nil
}

// alive: the process of the pidfd has not ended.
func alive(pidfd int) error {
	if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err != nil {
		return fmt.Errorf("the process that connected has ended: %w", err)
	}
	return nil
}

// ClientHandshake implements credentials.TransportCredentials; this only serves.
func (attesting) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are for servers")
}

// Info implements credentials.TransportCredentials.
func (attesting) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "netns"}
}

// Clone implements credentials.TransportCredentials.
func (a attesting) Clone() credentials.TransportCredentials { return a }

// OverrideServerName implements credentials.TransportCredentials.
func (attesting) OverrideServerName(string) error { return nil }
