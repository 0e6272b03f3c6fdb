package datapath

import (
	"fmt"
	"net"
	"testing"
)

// answering answers whatever comes to an address of a namespace, by TCP or UDP, with
// what answer says.
func answering(t testing.TB, ns, at string, answer func(got []byte, from net.Addr) []byte) {
	t.Helper()
	inNetns(t, ns, func() error {
		l, err := net.Listen("tcp", at)
		if err != nil {
			return err
		}
		p, err := net.ListenPacket("udp", at)
		if err != nil {
			return err
		}
		done := make(chan bool, 2)
		t.Cleanup(func() { l.Close(); p.Close(); <-done; <-done })
		go func() {
			defer func() { done <- true }()
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { // ends with the client
					defer c.Close()
					for b := make([]byte, 65536); ; {
						n, err := c.Read(b)
						if err != nil {
							return
						}
						if _, err := c.Write(answer(b[:n], c.RemoteAddr())); err != nil {
							return
						}
					}
				}()
			}
		}()
		go func() {
			defer func() { done <- true }()
			for b := make([]byte, 65536); ; {
				n, from, err := p.ReadFrom(b)
				if err != nil {
					return
				}
				p.WriteTo(answer(b[:n], from), from)
			}
		}()
		return nil
	})
}

func sameBytes(got []byte, _ net.Addr) []byte { return got }

// echoServer answers on port 7 of a namespace, byte for byte.
func echoServer(t testing.TB, ns, addr string) {
	t.Helper()
	answering(t, ns, net.JoinHostPort(addr, "7"), sameBytes)
}

// whoami answers on a port of a namespace with its name.
func whoami(t testing.TB, ns, name string, port int) {
	t.Helper()
	answering(t, ns, fmt.Sprint(":", port), func([]byte, net.Addr) []byte { return []byte(name) })
}

// whoServer tells everybody under which address and port they come.
func whoServer(t testing.TB, ns, addr string, port int) {
	t.Helper()
	answering(t, ns, net.JoinHostPort(addr, fmt.Sprint(port)), func(_ []byte, from net.Addr) []byte { return []byte(from.String()) })
}
