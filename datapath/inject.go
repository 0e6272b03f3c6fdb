package datapath

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// sendProbes sends the packets that traces ask for, once each, from Workloads
// that are here.
func (d *Datapath) sendProbes() error {
	d.probeDue.Store(0)
	return d.locked(func() error {
		probes := d.probes
		d.probes = nil
		if d.want != nil {
			d.sendAll(probes, d.state, d.want)
		}
		return nil
	})
}

func (d *Datapath) sendAll(probes []snapshot.Capture, s State, w *want) {
	for _, c := range probes {
		at := slices.IndexFunc(s.Locals, func(l Local) bool {
			return l.VNI == c.Probe.Source.VNI && slices.Contains(l.Addrs, c.Probe.Source.IP.Unmap())
		})
		if at < 0 || w.links[s.Locals[at].Host] == 0 {
			continue // another node sends it
		}
		l := &s.Locals[at]
		if err := d.inject(w.links[l.Host], d.probeFrame(l, c.Probe)); err != nil {
			d.cfg.Log.Warn("send the probe of a trace", "trace", c.ID, "interface", l.Host, "error", err)
		}
	}
}

// inject makes a frame arrive at an interface as if the Workload had sent it,
// be it a pair or a tap: it goes out of a pair made for it, whose program sends
// it to the ingress of the interface, and there it meets the program of the
// interface.
func (d *Datapath) inject(ifindex int, frame []byte) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = hostPrefix + "p" + shortHash(d.cfg.Node, "probe")[:10]
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: attrs.Name + "x"}
	if old, err := netlink.LinkByName(attrs.Name); err == nil { // of an agent that died
		netlink.LinkDel(old)
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("make a pair to send from: %w", err)
	}
	defer netlink.LinkDel(pair)
	door, err := netlink.LinkByName(attrs.Name)
	if err != nil {
		return fmt.Errorf("look for the pair to send from: %w", err)
	}
	if err := writeSetting("ipv6", attrs.Name, "disable_ipv6", "1"); err != nil {
		return err
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "to_ingress", Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R1, int32(ifindex)), asm.Mov.Imm(asm.R2, unix.BPF_F_INGRESS), asm.FnRedirect.Call(), asm.Return(),
		},
	})
	if err != nil {
		return fmt.Errorf("load the program that leads to the interface: %w", err)
	}
	defer program.Close()
	on, err := link.AttachTCX(link.TCXOptions{Interface: door.Attrs().Index, Program: program, Attach: ebpf.AttachTCXEgress})
	if err != nil {
		return fmt.Errorf("attach the program that leads to the interface: %w", err)
	}
	defer on.Close()
	if err := netlink.LinkSetUp(door); err != nil {
		return fmt.Errorf("set the pair to send from up: %w", err)
	}
	return sendFrame(door.Attrs().Index, frame)
}

func sendFrame(ifindex int, frame []byte) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	defer unix.Close(fd)
	// Without this the packet could be marked for cutting up or for checksums.
	if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifindex, Halen: 6}); err != nil {
		return fmt.Errorf("send a frame: %w", err)
	}
	return nil
}

// probeFrame is what the Workload would send.
func (d *Datapath) probeFrame(l *Local, p snapshot.Probe) []byte {
	dst := snapshot.RouterMAC
	if row, ok := d.tables.endpoints.rows[addrKey(l.VNI, p.Destination.IP)]; ok && row.Mac != ([6]byte{}) {
		dst = row.Mac
	}
	f := append(append([]byte{}, dst[:]...), l.MAC[:]...)
	src, to := p.Source.IP.Unmap(), p.Destination.IP.Unmap()
	body := probeBody(p, src, to)
	if src.Is4() {
		h := make([]byte, 20)
		h[0], h[8], h[9] = 0x45, 64, p.Protocol
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(body)))
		copy(h[12:], src.AsSlice())
		copy(h[16:], to.AsSlice())
		binary.BigEndian.PutUint16(h[10:], ^sum16(0, h))
		return append(append(append(f, 0x08, 0x00), h...), body...)
	}
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, p.Protocol, 64
	if p.Protocol == policy.ICMP {
		h[6] = 58
	}
	binary.BigEndian.PutUint16(h[4:], uint16(len(body)))
	copy(h[8:], src.AsSlice())
	copy(h[24:], to.AsSlice())
	return append(append(append(f, 0x86, 0xdd), h...), body...)
}

// probeBody is a SYN, an empty datagram or an echo request.
func probeBody(p snapshot.Probe, src, dst netip.Addr) []byte {
	var b []byte
	at, sum, proto := 0, uint32(0), p.Protocol
	switch p.Protocol {
	case policy.TCP:
		b, at = make([]byte, 20), 16
		b[12], b[13] = 5<<4, 2
	case policy.UDP:
		b, at = make([]byte, 8), 6
		b[5] = 8
	case policy.ICMP, 58:
		b, at = make([]byte, 8), 2
		b[0] = 8
		if proto = 1; src.Is6() {
			b[0], proto = 128, 58
		}
		binary.BigEndian.PutUint16(b[4:], p.SourcePort)
	default:
		b = make([]byte, 12)
	}
	if proto == policy.TCP || proto == policy.UDP || proto == policy.SCTP {
		binary.BigEndian.PutUint16(b, p.SourcePort)
		binary.BigEndian.PutUint16(b[2:], p.Port)
	}
	if at > 0 {
		if proto != policy.ICMP {
			pseudo := append(append(src.AsSlice(), dst.AsSlice()...), 0, proto, 0, byte(len(b)))
			sum = uint32(sum16(0, pseudo))
		}
		binary.BigEndian.PutUint16(b[at:], ^sum16(sum, b))
	}
	return b
}

// sum16 is the internet checksum before it is turned round.
func sum16(sum uint32, b []byte) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
