package datapath

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot"
)

// samples is how many packets are counted together.
const samples = 64

// BenchmarkFastPath prints what the programs alone cost per packet: the median
// over samples, by the kernel's own statistics, less what a program that does
// nothing shows there. What the helper functions leave for afterwards, the
// redirect above all, is not in it.
func BenchmarkFastPath(b *testing.B) {
	s := newSpeed(b)
	for _, v6 := range []bool{false, true} {
		family := map[bool]string{false: "v4", true: "v6"}[v6]
		web, db, far := s.addrs(v6)
		const ack, syn = 0x10, 0x02
		for _, c := range []struct {
			name     string
			src, dst netip.Addr
			new      bool
		}{
			{"data/here", web, db, false}, {"data/to-node", web, far, false}, {"data/from-node", far, web, false},
			{"first/here", web, db, true}, {"first/to-node", web, far, true}, {"first/from-node", far, web, true},
		} {
			program, wrap := s.judge.FromWorkload, func(f []byte) []byte { return f }
			if c.src == far {
				program, wrap = s.judge.FromUnderlay, s.tunnel
			}
			b.Run(c.name+"/"+family, func(b *testing.B) {
				s.forget(b)
				s.run(b, program, wrap(segment(c.src, c.dst, 1024, syn)))
				s.measure(b, program, func(i int) []byte {
					if c.new {
						return wrap(segment(c.src, c.dst, uint16(2048+i), syn))
					}
					return wrap(segment(c.src, c.dst, 1024, ack))
				}, !c.new)
			})
		}
	}
}

// speed is a node without traffic whose programs are asked about packets.
type speed struct {
	*testNode
	judge   *judgeObjects
	nothing *ebpf.Program
	events  *ringbuf.Reader
	ifindex map[*ebpf.Program]uint32
}

func newSpeed(b *testing.B) *speed {
	w := newWorld(b)
	addNetns(b, "moire-dp-speed")
	sh(b, `ip -n moire-dp-speed link add up0 type veth peer name up1 && ip -n moire-dp-speed addr add 192.168.79.1/24 dev up0 &&
		ip -n moire-dp-speed link set up0 up && ip -n moire-dp-speed link set up1 up`)
	n := w.node("speed", "moire-dp-speed", "192.168.79.1")
	w.external["beyond"] = netip.MustParseAddr("192.168.79.2")
	w.network(100, "speed", "10.1.0.0/24", "fd10:1::/64")
	w.workload("speed", "speed", "web", 100, 11, "10.1.0.2", "fd10:1::2")
	w.workload("speed", "speed", "db", 100, 12, "10.1.0.3", "fd10:1::3")
	w.endpoint("beyond", "speed", "far", 100, 13, snapshot.MAC{2, 0, 0, 0, 0, 9}, []netip.Addr{netip.MustParseAddr("10.1.0.4"), netip.MustParseAddr("fd10:1::4")})
	w.apply()
	s := &speed{testNode: n}
	nothing := &ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}}
	err := n.locked(func() (err error) {
		if s.judge, err = n.loadJudge(); err != nil {
			return err
		}
		b.Cleanup(func() { s.judge.Close() })
		if s.nothing, err = ebpf.NewProgram(nothing); err != nil {
			return err
		}
		b.Cleanup(func() { s.nothing.Close() })
		if s.events, err = ringbuf.NewReader(s.judge.Events); err != nil {
			return err
		}
		b.Cleanup(func() { s.events.Close() })
		c := n.tables.control.rows[0]
		c.Share = math.MaxUint32
		s.ifindex = map[*ebpf.Program]uint32{
			s.nothing: uint32(n.uplink.Index), s.judge.FromUnderlay: uint32(n.uplink.Index),
			s.judge.FromWorkload: uint32(n.want.links[n.Datapath.state.Locals[0].Host]),
		}
		return s.judge.Control.Put(uint32(0), &c)
	})
	if err != nil {
		b.Fatal(err)
	}
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { stats.Close() })
	return s
}

func (s *speed) addrs(v6 bool) (web, db, far netip.Addr) {
	prefix := "10.1.0."
	if v6 {
		prefix = "fd10:1::"
	}
	return netip.MustParseAddr(prefix + "2"), netip.MustParseAddr(prefix + "3"), netip.MustParseAddr(prefix + "4")
}

func (s *speed) run(b *testing.B, p *ebpf.Program, frame []byte) {
	ret, err := p.Run(&ebpf.RunOptions{Data: frame, Context: skb{Ifindex: s.ifindex[p]}})
	if err != nil {
		b.Fatal(err)
	}
	if p != s.nothing && ret != 7 {
		b.Fatalf("the program does not send the packet on, but says %d", int32(ret))
	}
}

// sample is what one packet costs, by the statistics of the kernel.
func (s *speed) sample(b *testing.B, p *ebpf.Program, frames [][]byte) float64 {
	before, err := p.Stats()
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range frames {
		s.run(b, p, f)
	}
	after, err := p.Stats()
	if err != nil {
		b.Fatal(err)
	}
	return float64(after.Runtime-before.Runtime) / float64(after.RunCount-before.RunCount)
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// measure reports the median of samples, as ns/packet.
func (s *speed) measure(b *testing.B, p *ebpf.Program, frame func(int) []byte, warm bool) {
	err := s.locked(func() error {
		var all, floor []float64
		frames := make([][]byte, samples)
		for b.Loop() {
			for i := range frames {
				frames[i] = frame(i)
			}
			floor = append(floor, s.sample(b, s.nothing, frames))
			for range samples * int(flag(warm)) / 8 {
				s.run(b, p, frames[0])
			}
			all = append(all, s.sample(b, p, frames))
			if !warm {
				s.forget(b)
			}
		}
		b.ReportMetric(median(all)-median(floor), "ns/packet")
		b.ReportMetric(0, "ns/op")
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// forget empties the sessions and what was told about them.
func (s *speed) forget(b *testing.B) {
	if err := empty[bpf.MoireSessionKey, bpf.MoireSession](s.judge.Sessions); err != nil {
		b.Fatal(err)
	}
	s.events.SetDeadline(time.Unix(1, 0))
	for {
		if _, err := s.events.Read(); err != nil {
			return
		}
	}
}

// segment is a TCP segment of the Workloads here, or of the one beyond.
func segment(src, dst netip.Addr, port uint16, flags byte) []byte {
	mac := func(a netip.Addr) []byte {
		return map[byte][]byte{2: {2, 0, 0, 0, 0, 1}, 3: {2, 0, 0, 0, 0, 2}, 4: {2, 0, 0, 0, 0, 9}}[a.AsSlice()[a.BitLen()/8-1]]
	}
	t := make([]byte, 20+100)
	binary.BigEndian.PutUint16(t, port)
	binary.BigEndian.PutUint16(t[2:], 7)
	t[12], t[13] = 5<<4, flags
	f := slices.Concat(mac(dst), mac(src))
	if src.Is4() {
		h := []byte{0x45, 0, 0, byte(20 + len(t)), 0, 0, 0x40, 0, 64, 6, 0, 0}
		return slices.Concat(f, []byte{8, 0}, h, src.AsSlice(), dst.AsSlice(), t)
	}
	return slices.Concat(f, []byte{0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(t)), 6, 64}, src.AsSlice(), dst.AsSlice(), t)
}

// tunnel is how the node beyond sends a frame.
func (s *speed) tunnel(frame []byte) []byte {
	o := make([]byte, 14+20+8+8)
	o[12], o[14], o[22], o[23] = 8, 0x45, 64, 17
	binary.BigEndian.PutUint16(o[16:], uint16(36+len(frame)))
	copy(o[26:], []byte{192, 168, 79, 2, 192, 168, 79, 1})
	binary.BigEndian.PutUint16(o[36:], 4789)
	binary.BigEndian.PutUint16(o[38:], uint16(16+len(frame)))
	o[42], o[48] = 8, 100
	return append(o, frame...)
}
