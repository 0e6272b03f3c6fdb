package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// IP protocol numbers that a Probe can send.
const (
	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17
	protoSCTP = 132
)

// Probe is one real packet exchange between two namespaces.
type Probe struct {
	From, To string // namespaces, as paths; without To nobody listens
	// Listen, instead of To, is where it may arrive, whatever its destination is
	// called there.
	Listen   []Listener
	Source   netip.Addr
	Dest     netip.Addr
	Protocol uint8 // ICMP, TCP, UDP, SCTP
	Port     uint16
	// Wait is how long silence has to last to count as denied. Default 500 ms.
	Wait time.Duration
}

// Listener is a port in a namespace.
type Listener struct {
	Netns string // path
	// Addr to listen on; not valid: every address.
	Addr netip.Addr
	Port uint16
}

// listeners are the places where something has to listen.
func (p Probe) listeners() []Listener {
	if len(p.Listen) == 0 && p.To != "" {
		return []Listener{{Netns: p.To, Addr: p.Dest, Port: p.Port}}
	}
	return p.Listen
}

func (l Listener) String() string {
	if !l.Addr.IsValid() {
		return net.JoinHostPort("", strconv.Itoa(int(l.Port)))
	}
	return netip.AddrPortFrom(l.Addr, l.Port).String()
}

// Run sends the probe and reports whether it came through. For TCP and UDP a
// server is started at the destination and must answer; ICMP is answered by
// the destination's kernel; for SCTP, which not every kernel has, a chunk must
// arrive at a raw socket. An error means that the probe could not be made.
func (p Probe) Run() (bool, error) {
	if p.Wait == 0 {
		p.Wait = 500 * time.Millisecond
	}
	switch p.Protocol {
	case protoTCP:
		return p.tcp()
	case protoUDP:
		return p.udp()
	case protoICMP:
		return p.icmp()
	case protoSCTP:
		return p.sctp()
	}
	return false, fmt.Errorf("a probe cannot send IP protocol %d", p.Protocol)
}

func (p Probe) target() string {
	return net.JoinHostPort(p.Dest.String(), strconv.Itoa(int(p.Port)))
}

func (p Probe) tcp() (came bool, err error) {
	for _, l := range p.listeners() {
		server, err := serveTCP(l)
		if err != nil {
			return false, err
		}
		defer server.Close()
	}
	err = InNetns(p.From, func() error {
		d := net.Dialer{Timeout: p.Wait, LocalAddr: &net.TCPAddr{IP: p.Source.AsSlice()}}
		c, err := d.Dial("tcp", p.target())
		if silent(err) {
			return nil
		}
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(p.Wait))
		_, err = io.ReadFull(c, make([]byte, 1))
		came = err == nil
		return nil
	})
	return came, err
}

// serveTCP answers every connection with a byte until the listener is closed.
func serveTCP(at Listener) (l net.Listener, err error) {
	err = InNetns(at.Netns, func() error {
		return free(func() (err error) { l, err = net.Listen("tcp", at.String()); return err })
	})
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("x"))
			c.Close()
		}
	}()
	return l, nil
}

// free listens where another probe still does, or did a moment ago: a program
// that is being started has our sockets between its fork and its exec.
func free(listen func() error) error {
	err := listen()
	for until := time.Now().Add(10 * time.Second); errors.Is(err, unix.EADDRINUSE) && time.Now().Before(until); err = listen() {
		time.Sleep(5 * time.Millisecond)
	}
	return err
}

// silent: nothing came back, or word that there is no way.
func silent(err error) bool {
	var late net.Error
	return errors.As(err, &late) && late.Timeout() || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH) ||
		errors.Is(err, unix.EACCES) || errors.Is(err, unix.ECONNREFUSED) // somebody else has the address
}

func ignoreSilent(err error) error {
	if silent(err) {
		return nil
	}
	return err
}

// serveUDP echoes every datagram until the socket is closed.
func serveUDP(at Listener) (l net.PacketConn, err error) {
	err = InNetns(at.Netns, func() error {
		return free(func() (err error) { l, err = net.ListenPacket("udp", at.String()); return err })
	})
	if err != nil {
		return nil, err
	}
	go func() {
		b := make([]byte, 16)
		for {
			n, from, err := l.ReadFrom(b)
			if err != nil {
				return
			}
			l.WriteTo(b[:n], from)
		}
	}()
	return l, nil
}

func (p Probe) udp() (came bool, err error) {
	for _, l := range p.listeners() {
		server, err := serveUDP(l)
		if err != nil {
			return false, err
		}
		defer server.Close()
	}
	err = InNetns(p.From, func() error {
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: p.Source.AsSlice()}}
		c, err := d.Dial("udp", p.target())
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(p.Wait))
		if _, err := c.Write([]byte("x")); err != nil {
			return ignoreSilent(err)
		}
		_, err = c.Read(make([]byte, 1))
		came = err == nil
		return nil
	})
	return came, err
}

// raw opens a raw IP socket bound to the address inside the namespace.
func raw(netns string, local netip.Addr, proto int) (f *os.File, err error) {
	err = InNetns(netns, func() error {
		family := unix.AF_INET
		if local.Is6() {
			family = unix.AF_INET6
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "raw")
		return unix.Bind(fd, sockaddr(local))
	})
	return f, err
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}

// send writes one packet to the destination through the raw socket.
func send(f *os.File, to netip.Addr, packet []byte) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = c.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), packet, 0, sockaddr(to))
		return !errors.Is(sent, unix.EAGAIN)
	})
	return errors.Join(err, sent)
}

func (p Probe) icmp() (bool, error) {
	proto, request, reply := unix.IPPROTO_ICMP, byte(8), byte(0)
	if p.Dest.Is6() {
		proto, request, reply = unix.IPPROTO_ICMPV6, 128, 129
	}
	f, err := raw(p.From, p.Source, proto)
	if err != nil {
		return false, err
	}
	defer f.Close()
	id := uint16(rand.Uint32()) // other probes of this process run, too
	packet := []byte{request, 0, 0, 0, byte(id >> 8), byte(id), 0, 1, 'm', 'o', 'i', 'r'}
	if p.Dest.Is4() { // for IPv6 the kernel fills it in
		binary.BigEndian.PutUint16(packet[2:], checksum(packet))
	}
	if err := send(f, p.Dest, packet); err != nil {
		return false, ignoreSilent(err)
	}
	return await(f, p.Wait, func(b []byte) bool {
		if p.Dest.Is4() {
			b = b[min(len(b), int(b[0]&15)*4):]
		}
		return len(b) >= 8 && b[0] == reply && binary.BigEndian.Uint16(b[4:]) == id
	})
}

func (p Probe) sctp() (bool, error) {
	var to []*os.File
	for _, l := range p.listeners() {
		addr := l.Addr
		if !addr.IsValid() {
			if addr = netip.IPv4Unspecified(); p.Dest.Is6() {
				addr = netip.IPv6Unspecified()
			}
		}
		f, err := raw(l.Netns, addr, protoSCTP)
		if err != nil {
			return false, err
		}
		defer f.Close()
		to = append(to, f)
	}
	from, err := raw(p.From, p.Source, protoSCTP)
	if err != nil {
		return false, err
	}
	defer from.Close()
	// A common header without chunks: ports, tag and checksum.
	source := 20000 + rand.N[uint16](20000)
	packet := binary.BigEndian.AppendUint16(nil, source)
	packet = binary.BigEndian.AppendUint16(packet, p.Port)
	packet = append(packet, make([]byte, 8)...)
	if err := send(from, p.Dest, packet); err != nil {
		return false, ignoreSilent(err)
	}
	wanted := func(b []byte) bool {
		if p.Dest.Is4() {
			b = b[min(len(b), int(b[0]&15)*4):]
		}
		return len(b) >= 12 && binary.BigEndian.Uint16(b) == source
	}
	for until := time.Now().Add(p.Wait); time.Now().Before(until); {
		for _, f := range to {
			if came, err := await(f, p.Wait/time.Duration(10*len(to)), wanted); came || err != nil {
				return came, err
			}
		}
	}
	return false, nil
}

// await reads packets until one is wanted or the time is over.
func await(f *os.File, wait time.Duration, wanted func([]byte) bool) (bool, error) {
	if err := f.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return false, err
	}
	b := make([]byte, 2048)
	for {
		n, err := f.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if n > 0 && wanted(b[:n]) {
			return true, nil
		}
	}
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
