package door

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/flow/record"
)

// ends is a pair of connected sockets.
func ends(t *testing.T) (ours, others *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var made [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		made[i] = c.(*net.UnixConn)
	}
	return made[0], made[1]
}

// witness is a pipe: its reader learns when nobody has the writer any more.
func witness(t *testing.T) (r, w int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	return p[0], p[1]
}

// frames makes of each line of in one frame: its kind and its body. What the
// fuzzer changes in a body is then no wrong length.
func frames(in []byte) []byte {
	var out []byte
	for line := range bytes.SplitSeq(in, []byte{'\n'}) {
		if len(line) > 0 {
			out = binary.BigEndian.AppendUint32(out, uint32(len(line)-1))
			out = append(out, line...)
		}
	}
	return out
}

// say writes in to c in pieces, with as many descriptors as pieces says.
func say(c *net.UnixConn, in, pieces []byte, fd int) {
	defer c.CloseWrite()
	size := len(in)/(len(pieces)+1) + 1
	for i := 0; len(in) > 0; i++ {
		n, fds := min(size, len(in)), 0
		if i < len(pieces) {
			fds = int(pieces[i])
		}
		var oob []byte
		if fds > 0 {
			all := make([]int, fds)
			for j := range all {
				all[j] = fd
			}
			oob = unix.UnixRights(all...)
		}
		if _, _, err := c.WriteMsgUnix(in[:n], oob, nil); err != nil {
			return // the other end has heard enough
		}
		in = in[n:]
	}
}

// FuzzFrames lets an end of the door hear anything from the other one, in pieces
// and with descriptors. It comes to an end, keeps no descriptor that it was not
// given, and believes no answer to what was never said.
func FuzzFrames(f *testing.F) {
	const (
		toSockets = "\x01{\"namespace\":\"a\",\"itself\":true,\"outbound\":1,\"inbound\":1}\n"
		toConfig  = "\x03{\"number\":1,\"config\":{\"name\":\"n\"}}\n"
		hi        = "\x10{\"protocol\":1,\"pid\":7,\"workers\":2,\"version\":\"v\"}\n"
	)
	mesh, err := encodeConfig(2, config("m", 3))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(true, true, []byte(toSockets+toConfig+"\x02{\"namespace\":\"a\"}\n"+toConfig+"\x04{}\n"), []byte{3})
	f.Add(true, true, []byte(toSockets+"\x01{\"namespace\":\"a\",\"outbound\":2}\n"+toConfig+toSockets), []byte{0, 5, 2})
	f.Add(true, true, []byte("\x01{\"namespace\":\"a\",\"itself\":true,\"outbound\":9223372036854775807,\"inbound\":9223372036854775807}\n"), []byte{253})
	f.Add(true, true, append([]byte{3}, mesh[frameHead:]...), []byte{})
	f.Add(true, true, []byte("\x03{\"number\":3,\"config\":{\"mesh\":{\"workloads\":[{},{}]}},\"sets\":[{}],\"of\":[[0,0],[0,1]]}\n"), []byte{})
	f.Add(true, false, mesh, []byte{1, 0, 1})
	f.Add(true, false, []byte{0xff, 0xff, 0xff, 0xff, 3, '{'}, []byte{})
	f.Add(true, false, []byte{0, 0xff, 0xff, 0xff, 3, '{'}, []byte{200, 200, 200, 200, 200})
	f.Add(false, true, []byte(hi+"\x11{\"number\":1}\n\x12{\"ejected\":[{\"cluster\":\"c\",\"address\":\"a\",\"reason\":\"r\"}]}\n"), []byte{})
	f.Add(false, true, []byte(hi+"\x11{\"number\":1,\"refused\":\"no\"}\n\x11{\"number\":7}\n"), []byte{1})
	f.Add(false, true, []byte("\x10{\"protocol\":2}\n"), []byte{})
	quiet := slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, agent, framed bool, in, pieces []byte) {
		if framed {
			in = frames(in)
		}
		if len(in) > 32<<10 || len(pieces) > 16 {
			t.Skip() // what is said has to fit into the socket's buffer
		}
		ours, others := ends(t)
		defer others.Close()
		heard := make(chan struct{})
		seen, given := witness(t)
		say(others, in, pieces, given)
		go func() {
			defer close(heard)
			io.Copy(io.Discard, others)
		}()
		// What does not end by itself when it has heard everything fails below.
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if agent {
			hearAgent(ctx, quiet, ours)
		} else {
			hearProxy(ctx, t, quiet, ours)
		}
		if ctx.Err() != nil {
			t.Error("it did not end")
		}
		ours.Close()
		others.Close()
		<-heard
		unix.Close(given)
		if n, err := unix.Read(seen, make([]byte, 1)); n != 0 || err != nil {
			t.Errorf("a descriptor is left open: %d, %v", n, err)
		}
		unix.Close(seen)
	})
}

// hearAgent is a proxy that hears what comes by c.
func hearAgent(ctx context.Context, log *slog.Logger, c *net.UnixConn) {
	s := &served{has: map[*Sockets]bool{}}
	p := NewProxy(ProxyOptions{Served: s, Log: log})
	_ = p.attend(ctx, c) // it always ends by an error
	_ = s.Serve(State{})
}

// hearProxy is an agent that hears what comes by c.
func hearProxy(ctx context.Context, t *testing.T, log *slog.Logger, c *net.UnixConn) {
	a := NewAgent(AgentOptions{Log: log})
	ns, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ns)
	number := a.Set(State{Config: config("c", 1), Sockets: map[string]*Sockets{"ns0": {Namespace: ns}}})
	a.serve(ctx, c)
	if s := a.Status(); s.Applied > number || s.Refused > number {
		t.Errorf("%+v, of %d States", s, number)
	}
}

// FuzzRecords: whatever a proxy tells, what was understood arrives in order and
// once.
func FuzzRecords(f *testing.F) {
	f.Add([]byte("{\"id\":\"1\"}\n\n{\"id\":\"2\"}\n"))
	f.Add([]byte("{\"id\":\"1\"}\n{\"id\":"))
	f.Add([]byte("{}{}\n"))
	f.Add(bytes.Repeat([]byte("{}\n"), recordsAtOnce+1))
	f.Fuzz(func(t *testing.T, in []byte) {
		got := 0
		r := &Records{Take: func(rs []record.Record) {
			if len(rs) == 0 || len(rs) > recordsAtOnce {
				t.Errorf("%d records at once", len(rs))
			}
			got += len(rs)
		}}
		err := r.read(io.MultiReader(bytes.NewReader(in[:len(in)/2]), bytes.NewReader(in[len(in)/2:])), &sync.Mutex{})
		lines := 0
		for line := range bytes.SplitSeq(in, []byte{'\n'}) {
			if len(bytes.TrimSuffix(line, []byte{'\r'})) > 0 {
				lines++
			}
		}
		if got > lines || err == nil && got != lines {
			t.Errorf("%d records of %d lines, and %v", got, lines, err)
		}
	})
}
