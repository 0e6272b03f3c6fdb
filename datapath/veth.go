package datapath

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
)

// veth makes a pair for a moment.
func veth() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = fmt.Sprintf("%sp%x", hostPrefix, os.Getpid()&0xffffff)
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: attrs.Name + "x"}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("cannot make a veth pair: %w", err)
	}
	l, err := netlink.LinkByName(attrs.Name)
	if err != nil {
		return errors.New("a veth pair went away at once")
	}
	return netlink.LinkDel(l)
}
