package node

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// defaultAddress is the first global address of the interface that has the
// default route. proc is /proc/net.
func defaultAddress(proc string) (netip.Addr, error) {
	const fix = "pass --address with the address that the other nodes reach this one at"
	ifName, v6, err := defaultRoute(proc)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("cannot find the address of this node: %w; %s", err, fix)
	}
	i, err := net.InterfaceByName(ifName)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("cannot find the address of this node: interface %s: %w; %s", ifName, err, fix)
	}
	addrs, err := i.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("cannot find the address of this node: interface %s: %w; %s", ifName, err, fix)
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is6() == v6 && p.Addr().IsGlobalUnicast() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("cannot find the address of this node: interface %s with the default route has none; %s", ifName, fix)
}

// defaultRoute reads which interface has the default route, IPv4 before IPv6.
func defaultRoute(proc string) (ifName string, v6 bool, err error) {
	rows, err := readTable(filepath.Join(proc, "route"))
	if err != nil {
		return "", false, err
	}
	for _, f := range rows {
		// Iface Destination Gateway Flags ... Mask is column 7.
		if len(f) > 7 && f[1] == "00000000" && f[7] == "00000000" && flag(f[3])&1 != 0 {
			return f[0], false, nil
		}
	}
	rows, err = readTable(filepath.Join(proc, "ipv6_route"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", false, err
	}
	for _, f := range rows {
		// Flags: up, and not the reject route that every namespace has.
		if len(f) > 9 && strings.Trim(f[0], "0") == "" && f[1] == "00" && f[9] != "lo" && flag(f[8])&0x201 == 1 {
			return f[9], true, nil
		}
	}
	return "", false, errors.New("there is no default route")
}

func readTable(path string) ([][]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var rows [][]string
	s := bufio.NewScanner(f)
	for s.Scan() {
		rows = append(rows, strings.Fields(s.Text()))
	}
	return rows, s.Err()
}

// flag reads a hexadecimal column of up to 8 digits; 0 when it is none.
func flag(s string) uint32 {
	b, err := hex.DecodeString(strings.Repeat("0", max(0, 8-len(s))) + s)
	if err != nil || len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
