package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// uplink is the interface that has the address.
func (c Config) uplink() (*net.Interface, error) {
	if c.Uplink != "" {
		i, err := net.InterfaceByName(c.Uplink)
		if err != nil {
			return nil, fmt.Errorf("uplink %s of node %s: %w; name an interface that exists (ip link)", c.Uplink, c.Node, err)
		}
		return i, nil
	}
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went away meanwhile
		}
		for _, a := range addrs {
			if p, ok := a.(*net.IPNet); ok && p.IP.Equal(c.Address.AsSlice()) && !strings.HasPrefix(i.Name, hostPrefix) {
				return &i, nil
			}
		}
	}
	return nil, errors.New("no interface has the underlay address " + c.Address.String() +
		" of node " + c.Node + "; give the node the address of one of its interfaces (ip address)")
}

// findUplink finds the uplink and learns of it.
func (d *Datapath) findUplink() (err error) {
	if d.uplink, err = d.cfg.uplink(); err != nil {
		return err
	}
	return d.refreshUplink()
}

// refreshUplink looks again: it may have been made anew or have another MTU,
// or other addresses are neighbours now.
func (d *Datapath) refreshUplink() error {
	index, err := interfaceIndex(d.uplink.Name)
	if err != nil {
		return err
	}
	if index != d.uplink.Index {
		if d.uplink, err = d.cfg.uplink(); err != nil {
			return err
		}
	}
	d.uplinkIndex.Store(uint32(d.uplink.Index))
	mtu, err := interfaceMTU(d.uplink.Name)
	if err != nil {
		return fmt.Errorf("MTU of uplink %s: %w", d.uplink.Name, err)
	}
	d.mtu.Store(int64(mtu))
	addrs, err := d.uplink.Addrs()
	if err != nil {
		return fmt.Errorf("addresses of uplink %s: %w", d.uplink.Name, err)
	}
	d.subnets = d.subnets[:0]
	for _, a := range addrs {
		if p, ok := a.(*net.IPNet); ok && !p.IP.IsLinkLocalUnicast() {
			d.subnets = append(d.subnets, p)
		}
	}
	return nil
}

// onlink reports whether another node is a neighbour on the uplink; packets to
// others follow the routes of the machine.
func (d *Datapath) onlink(a netip.Addr) bool {
	for _, p := range d.subnets {
		if ones, bits := p.Mask.Size(); ones < bits && p.Contains(a.AsSlice()) {
			return true
		}
	}
	return false
}
