package datapath

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"moire.dev/moire/snapshot"
)

// The token buckets of the programs (rate.h) hold every limit, and drop what
// exceeds it. TCP between machines that are microseconds apart cannot go as
// slowly as a small limit wants: it would lose whole windows and wait. So TCP of
// a limited interface goes through a queue of the kernel that lets it out at the
// limit (a token bucket filter, sch_tbf), and the buckets seldom have to drop:
//
//	what it receives   leaves by the node's end of its pair, or by its tap
//	what it sends      goes round by a throttle: a pair of the node, whose one
//	                   end has the queue, and whose other end runs the program
//
// A kernel without sch_tbf has the buckets alone.

const (
	throttleMark = "moire-throttle:"
	queuePrefix  = "mq" // the end with the queue
	throttled    = "mt" // the end with the program

	queueTime  = 60e-3 // s: the longest queue
	spurtTime  = 10e-3 // s: what leaves at once
	leastSpurt = 3200  // bytes
	leastQueue = 15000
)

// tighter is the lower limit in each direction: no interface alone may have more
// than its Network.
func tighter(a, b snapshot.Limit) snapshot.Limit {
	lower := func(a, b uint64) uint64 {
		if a == 0 || b != 0 && b < a {
			return b
		}
		return a
	}
	return snapshot.Limit{Egress: lower(a.Egress, b.Egress), Ingress: lower(a.Ingress, b.Ingress)}
}

// throttleNames are the two ends of the throttle of an interface.
func throttleNames(host string) (queue, program string) {
	id := strings.TrimPrefix(host, hostPrefix)
	return queuePrefix + id, throttled + id
}

// shape gives an interface the queues for its limit, and returns the ends of
// its throttle; 0 when it has none.
func (d *Datapath) shape(host string, ifindex int, l snapshot.Limit) (queue, program int, err error) {
	if err := d.queueAt(ifindex, l.Ingress); err != nil || l.Egress == 0 {
		return 0, 0, err
	}
	queueName, programName := throttleNames(host)
	if queue, err = interfaceIndex(queueName); err != nil {
		return 0, 0, err
	}
	if queue == 0 {
		if err := d.makeThrottle(host, queueName, programName); err != nil {
			return 0, 0, err
		}
		if queue, err = interfaceIndex(queueName); err != nil {
			return 0, 0, err
		}
	}
	if program, err = interfaceIndex(programName); err != nil {
		return 0, 0, err
	}
	if queue == 0 || program == 0 {
		return 0, 0, fmt.Errorf("the throttle of %s is gone", host)
	}
	if err := d.queueAt(queue, l.Egress); err != nil {
		return 0, 0, err
	}
	return queue, program, setUp(queueName, true)
}

// makeThrottle makes the pair. The end with the program stays down until it has
// it.
func (d *Datapath) makeThrottle(host, queue, program string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.TxQLen = queue, 65535, 1000
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: program, PeerMTU: 65535}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("make the throttle of %s: %w", host, err)
	}
	return errors.Join(makeOurs(queue, throttleMark+d.cfg.Node), makeOurs(program, throttleMark+d.cfg.Node))
}

// queueAt makes an interface have a queue of that rate, or none.
func (d *Datapath) queueAt(ifindex int, bits uint64) error {
	if had, known := d.queues[ifindex]; known && had == bits {
		return nil
	}
	rate := max(bits/8, 1)
	spurt := max(uint32(float64(rate)*spurtTime), leastSpurt)
	q := &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: ifindex, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       rate, Limit: max(uint32(float64(rate)*queueTime), leastQueue) + spurt, Buffer: netlink.Xmittime(rate, spurt),
	}
	err := error(nil)
	if bits == 0 {
		if err = netlink.QdiscDel(q); errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
			err = nil // it has none
		}
	} else if err = netlink.QdiscReplace(q); errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		d.cfg.Log.Warn("this kernel has no sch_tbf: TCP may stay below its limit", "interface", ifindex)
		err = nil
	}
	if err != nil {
		return fmt.Errorf("queue of interface %d: %w", ifindex, err)
	}
	d.queues[ifindex] = bits
	return nil
}

// dropThrottles removes the throttles that are not wanted.
func (d *Datapath) dropThrottles(w *want) error {
	have, err := listed(func(l netlink.Link) bool {
		return l.Attrs().Alias == throttleMark+d.cfg.Node && strings.HasPrefix(l.Attrs().Name, throttled)
	})
	if err != nil {
		return err
	}
	for _, name := range have {
		if _, wanted := w.links[name]; wanted {
			continue
		}
		if err := removeLink(name); err != nil { // and so the other end
			return err
		}
	}
	live := map[uint32]bool{}
	for ifindex, row := range w.ifaces {
		live[ifindex], live[row.Throttle] = true, true
	}
	for ifindex := range d.queues {
		if !live[uint32(ifindex)] {
			delete(d.queues, ifindex) // gone, with its queue
		}
	}
	return nil
}
