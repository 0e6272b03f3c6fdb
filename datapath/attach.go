package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// attachment is one program on one interface.
type attachment struct {
	link    link.Link
	ifindex int
	host    string // "" is the uplink
}

const (
	uplinkPin   = "uplink"
	loopbackPin = "loopback"
	ifacePin    = "if-"

	loopback = 1 // its index, in every namespace
)

// attachAll puts the programs where they belong, the uplink first, and only
// then sets interfaces up: without a program nothing gets through.
func (d *Datapath) attachAll(w *want) error {
	if err := d.attach(uplinkPin, "", d.uplink.Index, d.objects.FromUnderlay); err != nil {
		return err
	}
	if err := d.attach(loopbackPin, "lo", loopback, d.objects.FromUnderlay); err != nil {
		return err
	}
	if err := setUp("lo", true); err != nil {
		return fmt.Errorf("set the loopback up: %w", err)
	}
	var errs []error
	for host, ifindex := range w.links {
		if err := d.attach(ifacePin+host, host, ifindex, d.objects.FromWorkload); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := setUp(host, true); err != nil {
			errs = append(errs, fmt.Errorf("set interface %s up: %w", host, err))
		}
	}
	return errors.Join(errs...)
}

// attach takes over the pinned link, replacing its program in one step, or
// makes a new one.
func (d *Datapath) attach(pin, host string, ifindex int, p *ebpf.Program) error {
	if a, ok := d.links[pin]; ok {
		if a.ifindex == ifindex && onInterface(a.link, ifindex) {
			return nil
		}
		if a.ifindex == ifindex {
			d.writes.found("programs", "there was none on", pin)
		}
		d.forgetLink(pin)
	}
	path := filepath.Join(d.linkDir(), pin)
	if !d.cfg.Ephemeral {
		if l, err := link.LoadPinnedLink(path, nil); err == nil {
			if onInterface(l, ifindex) {
				if err := l.Update(p); err != nil {
					l.Close()
					return fmt.Errorf("replace the program of %s: %w", pin, err)
				}
				d.links[pin] = &attachment{l, ifindex, host}
				return nil
			}
			l.Close()
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("remove a stale pin: %w", err)
			}
		}
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: p, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()})
	if err != nil {
		return fmt.Errorf("attach the program of %s: %w", pin, err)
	}
	if !d.cfg.Ephemeral {
		if err := l.Pin(path); err != nil {
			l.Close()
			return fmt.Errorf("pin the program of %s: %w", pin, err)
		}
	}
	d.writes.Add(1)
	d.links[pin] = &attachment{l, ifindex, host}
	return nil
}

// onInterface reports whether the link is on the interface. The interface of a
// link that is gone has index 0.
func onInterface(l link.Link, ifindex int) bool {
	info, err := l.Info()
	if err != nil {
		return false
	}
	tcx := info.TCX()
	return tcx != nil && int(tcx.Ifindex) == ifindex
}

// forgetLink takes the program off. To unpin and close alone would leave that
// to the kernel, for later: until then the program cannot come back.
func (d *Datapath) forgetLink(pin string) {
	path := filepath.Join(d.linkDir(), pin)
	a, ok := d.links[pin]
	if !ok && !d.cfg.Ephemeral {
		if l, err := link.LoadPinnedLink(path, nil); err == nil { // of an agent before us
			a, ok = &attachment{link: l}, true
		}
	}
	if ok {
		if err := a.link.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) {
			d.cfg.Log.Warn("take a program off", "pin", pin, "error", err)
		}
		a.link.Close()
		delete(d.links, pin)
	}
	os.Remove(path)
}

// detachOthers removes the links that are not wanted. An interface that is
// still there is set down first: without its program it must not reach the host.
func (d *Datapath) detachOthers(w *want) error {
	pins := map[string]bool{}
	for pin := range d.links {
		pins[pin] = true
	}
	if !d.cfg.Ephemeral {
		entries, err := os.ReadDir(d.linkDir())
		if err != nil {
			return fmt.Errorf("list pins: %w", err)
		}
		for _, e := range entries {
			pins[e.Name()] = true
		}
	}
	for pin := range pins {
		host, iface := strings.CutPrefix(pin, ifacePin)
		if _, wanted := w.links[host]; !iface || wanted {
			continue
		}
		if err := setUp(host, false); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("set interface %s down: %w", host, err)
		}
		d.forgetLink(pin)
		d.writes.Add(1)
	}
	if err := d.dropThrottles(w); err != nil {
		return err
	}
	if d.cfg.Ephemeral {
		return nil
	}
	return d.dropOldLayouts()
}

// ioctl asks about or changes one interface by name.
func ioctl(name string, f func(fd int, r *unix.Ifreq) error) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("interface name %q: %w", name, err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd, r)
}

func setUp(name string, up bool) error {
	return ioctl(name, func(fd int, r *unix.Ifreq) error {
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, r); err != nil {
			return err
		}
		flags := r.Uint16()
		if (flags&unix.IFF_UP != 0) == up {
			return nil
		}
		r.SetUint16(flags ^ unix.IFF_UP)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
	})
}

// interfaceIndex is 0 when there is none of the name.
func interfaceIndex(name string) (int, error) {
	var index int
	err := ioctl(name, func(fd int, r *unix.Ifreq) error {
		err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r)
		index = int(r.Uint32())
		return err
	})
	if errors.Is(err, unix.ENODEV) {
		return 0, nil
	}
	return index, err
}

func interfaceMTU(name string) (int, error) {
	var mtu int
	err := ioctl(name, func(fd int, r *unix.Ifreq) error {
		err := unix.IoctlIfreq(fd, unix.SIOCGIFMTU, r)
		mtu = int(r.Uint32())
		return err
	})
	return mtu, err
}
