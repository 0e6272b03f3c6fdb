package datapath

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"testing"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// sctpFrame is an SCTP packet with its CRC.
func sctpFrame(mac snapshot.MAC, src, dst netip.AddrPort, payload int) []byte {
	body := make([]byte, 12+payload)
	binary.BigEndian.PutUint16(body, src.Port())
	binary.BigEndian.PutUint16(body[2:], dst.Port())
	for i := range payload {
		body[12+i] = byte(i * 7)
	}
	binary.LittleEndian.PutUint32(body[8:], crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	f := append(append([]byte{}, snapshot.RouterMAC[:]...), mac[:]...)
	if src.Addr().Is4() {
		h := make([]byte, 20)
		h[0], h[8], h[9] = 0x45, 64, policy.SCTP
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(body)))
		copy(h[12:], src.Addr().AsSlice())
		copy(h[16:], dst.Addr().AsSlice())
		sum := uint32(0)
		for i := 0; i < 20; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(h[i:]))
		}
		binary.BigEndian.PutUint16(h[10:], ^uint16(sum+sum>>16))
		return append(append(append(f, 0x08, 0), h...), body...)
	}
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, policy.SCTP, 64
	binary.BigEndian.PutUint16(h[4:], uint16(len(body)))
	copy(h[8:], src.Addr().AsSlice())
	copy(h[24:], dst.Addr().AsSlice())
	return append(append(append(f, 0x86, 0xdd), h...), body...)
}

// sctpOf reads the ports of the frame, and whether its CRC is right.
func sctpOf(f []byte, v4 bool) (sport, dport uint16, sound bool) {
	at := 54
	if v4 {
		at = 34
	}
	body := append([]byte{}, f[at:]...)
	crc := binary.LittleEndian.Uint32(body[8:])
	binary.LittleEndian.PutUint32(body[8:], 0)
	return binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:]), crc == crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli))
}

// TestServiceSCTP: packets of SCTP go to another port of the backend and back,
// with the right CRC. (By the program alone: many kernels have no SCTP sockets.)
func TestServiceSCTP(t *testing.T) {
	w := shop(t)
	w.service("sigtran", 100, policy.SCTP, "10.1.0.105:2905", "10.1.0.3:3905")
	w.service("sigtran", 100, policy.SCTP, "[fd10:1::105]:2905", "[fd10:1::3]:3905")
	w.apply()
	n := w.nodes["a"]
	web, b1 := n.locals[0], n.locals[1]
	for _, c := range [][3]string{{"10.1.0.2:1000", "10.1.0.105:2905", "10.1.0.3:3905"}, {"[fd10:1::2]:1000", "[fd10:1::105]:2905", "[fd10:1::3]:3905"}} {
		client, vip, backend := netip.MustParseAddrPort(c[0]), netip.MustParseAddrPort(c[1]), netip.MustParseAddrPort(c[2])
		for _, payload := range []int{4, 16, 20, 500, 1300} {
			j, err := n.Judge(web.Host, sctpFrame(web.MAC, client, vip, payload))
			if err != nil {
				t.Fatal(err)
			}
			if sport, dport, sound := sctpOf(j.Packet, client.Addr().Is4()); j.Action != Deliver || sport != 1000 || dport != 3905 || !sound {
				t.Errorf("to the Service, %d bytes: %s %s, %d -> %d, CRC right: %v", payload, j.Action, j.Drop, sport, dport, sound)
			}
			if j, err = n.Judge(b1.Host, sctpFrame(b1.MAC, backend, client, payload)); err != nil {
				t.Fatal(err)
			}
			if sport, dport, sound := sctpOf(j.Packet, client.Addr().Is4()); j.Action != Deliver || sport != 2905 || dport != 1000 || !sound {
				t.Errorf("from the Service, %d bytes: %s %s, %d -> %d, CRC right: %v", payload, j.Action, j.Drop, sport, dport, sound)
			}
		}
	}
}
