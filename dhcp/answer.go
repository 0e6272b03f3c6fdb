package dhcp

import "moire.dev/moire/snapshot"

// Answer is the frame that answers one that came in at the interface; nil when
// it gets none, because it is nothing of ours, or not from the machine.
func Answer(i *Interface, frame []byte) []byte {
	p, err := parse(frame)
	// Who speaks with another MAC is not the machine, and what is for another
	// MAC is not for us.
	if err != nil || p.srcMAC != i.MAC || p.dstMAC[0]&1 == 0 && p.dstMAC != snapshot.RouterMAC {
		return nil
	}
	switch {
	case p.proto == protoICMPv6:
		return solicited(i, &p)
	case p.src.Is4() && p.dport == serverPort4:
		return answer4(i, &p)
	case p.src.Is6() && p.dport == serverPort6:
		return answer6(i, &p)
	}
	return nil
}
