package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A process that is to be replaced listens on a unix socket. Its successor
// connects, gets the listening sockets (SCM_RIGHTS), begins to serve, says
// so, and the old one drains. A successor that dies before it says so changes
// nothing: both held the same sockets, and the old one goes on.

// handoverTime is how long a successor may take until it serves.
const handoverTime = 30 * time.Second

// fdsPerMessage is fewer than the kernel's limit of 253.
const fdsPerMessage = 200

const serving = "serving\n"

// Offer is the place where a successor finds the listening sockets.
type Offer struct {
	p *Proxy
	l *net.UnixListener
}

// Offer listens at path, in place of whoever did before.
func (p *Proxy) Offer(path string) (*Offer, error) {
	old := unix.Umask(0o177)
	l, err := listenOver(path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("hand-over at %s: %w", path, err)
	}
	return &Offer{p, l}, nil
}

// Run gives the sockets to a successor. It returns nil when one serves: then
// drain and end; or an error, that of ctx when it ends.
func (o *Offer) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { o.l.Close() })
	defer stop()
	defer o.l.Close()
	for {
		c, err := o.l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("hand-over: %w", err)
		}
		if err := o.p.handTo(ctx, c); err != nil {
			o.p.log.Error("hand-over failed; this process goes on", "error", err)
			continue
		}
		return nil
	}
}

// listenOver listens at path, in place of whoever did before.
func listenOver(path string) (*net.UnixListener, error) {
	beside := fmt.Sprintf("%s.%d", path, os.Getpid())
	os.Remove(beside)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: beside, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := os.Rename(beside, path); err != nil {
		l.Close()
		os.Remove(beside)
		return nil, err
	}
	return l, nil
}

func (p *Proxy) handTo(ctx context.Context, c *net.UnixConn) error {
	defer c.Close()
	c.SetDeadline(time.Now().Add(handoverTime))
	if err := sameUser(c); err != nil {
		return err
	}
	var list []string
	var fds []int
	for addr, all := range p.Sockets(ctx) {
		for _, fd := range all {
			list = append(list, addr.String())
			fds = append(fds, fd)
		}
	}
	head, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if _, err := c.Write(append(head, '\n')); err != nil {
		return err
	}
	for len(fds) > 0 {
		n := min(len(fds), fdsPerMessage)
		if _, _, err := c.WriteMsgUnix([]byte{byte(n)}, unix.UnixRights(fds[:n]...), nil); err != nil {
			return err
		}
		fds = fds[n:]
	}
	word := make([]byte, len(serving))
	if _, err := io.ReadFull(c, word); err != nil {
		return fmt.Errorf("the successor did not begin to serve: %w", err)
	}
	if string(word) != serving {
		return fmt.Errorf("the successor said %q", word)
	}
	return nil
}

// sameUser refuses who is neither root nor us.
func sameUser(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return err
	}
	if credErr != nil {
		return credErr
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d may not take the sockets", cred.Uid)
	}
	return nil
}

// TakeOver asks the process that listens at path for its sockets. serves has to be
// called when they are served; the process then drains. Without such a
// process there are no sockets and no error.
func TakeOver(path string) (sockets map[netip.AddrPort][]int, serves func() error, err error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, func() error { return nil }, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("hand-over from the process at %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			c.Close()
			err = fmt.Errorf("hand-over from the process at %s: %w", path, err)
		}
	}()
	c.SetDeadline(time.Now().Add(handoverTime))
	list, err := readList(c)
	if err != nil {
		return nil, nil, err
	}
	fds, err := readFDs(c, len(list))
	if err != nil {
		return nil, nil, err
	}
	sockets = map[netip.AddrPort][]int{}
	for i, text := range list {
		addr, err := netip.ParseAddrPort(text)
		if err != nil {
			return nil, nil, err
		}
		sockets[addr] = append(sockets[addr], fds[i])
	}
	return sockets, func() error {
		defer c.Close()
		_, err := c.Write([]byte(serving))
		return err
	}, nil
}

// readList reads the line with the addresses, byte by byte, because what
// follows carries descriptors.
func readList(c *net.UnixConn) ([]string, error) {
	var line []byte
	var b [1]byte
	for len(line) < 1<<20 {
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return nil, err
		}
		if b[0] == '\n' {
			var list []string
			return list, json.Unmarshal(line, &list)
		}
		line = append(line, b[0])
	}
	return nil, errors.New("the list of addresses does not end")
}

func readFDs(c *net.UnixConn, want int) ([]int, error) {
	var fds []int
	oob := make([]byte, unix.CmsgSpace(fdsPerMessage*4))
	for len(fds) < want {
		var b [1]byte
		n, oobn, _, _, err := c.ReadMsgUnix(b[:], oob)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return nil, err
		}
		for i := range messages {
			more, err := unix.ParseUnixRights(&messages[i])
			if err != nil {
				return nil, err
			}
			for _, fd := range more {
				unix.CloseOnExec(fd)
			}
			fds = append(fds, more...)
		}
	}
	return fds, nil
}
