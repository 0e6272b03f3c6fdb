package datapath

import (
	"time"

	"golang.org/x/sys/unix"
)

// packetSocket reads what an interface gets; the reader says whether a frame
// came in (not out). stop ends it.
func packetSocket(ifindex int) (read func([]byte) (int, bool, error), stop func(), err error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(ntohs(unix.ETH_P_ALL)))
	if err != nil {
		return nil, nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifindex, Protocol: ntohs(unix.ETH_P_ALL)}); err != nil {
		return nil, nil, err
	}
	tv := unix.NsecToTimeval(int64(50 * time.Millisecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return nil, nil, err
	}
	done := make(chan bool)
	read = func(b []byte) (int, bool, error) {
		for {
			n, from, err := unix.Recvfrom(fd, b, 0)
			if err == nil {
				l, ok := from.(*unix.SockaddrLinklayer)
				return n, ok && l.Pkttype != unix.PACKET_OUTGOING, nil
			}
			select {
			case <-done:
				unix.Close(fd)
				return 0, false, err
			default:
			}
		}
	}
	return read, func() { close(done) }, nil
}
