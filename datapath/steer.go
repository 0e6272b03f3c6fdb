package datapath

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"moire.dev/moire/datapath/bpf"
)

const standPin = "ns-"

// CgroupRoot is the root of the control groups, version 2, on this machine.
func CgroupRoot() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// 36 35 98:0 /root /mount/point options - type source options
		front, back, ok := strings.Cut(lines.Text(), " - ")
		if fields := strings.Fields(front); ok && len(fields) > 4 && fields[3] == "/" && strings.HasPrefix(back, "cgroup2 ") {
			return fields[4], nil
		}
	}
	return "", errors.New("the root of the control groups, version 2, is not mounted; mount it: mount -t cgroup2 none /sys/fs/cgroup")
}

// connectors puts the programs that see connections on the root of the control
// groups, when there is anybody whose connections matter.
func (d *Datapath) connectors(w *want, verify bool) error {
	if len(w.mesh.groups) == 0 && len(w.mesh.stands) == 0 || d.cfg.Ephemeral {
		return nil
	}
	for _, c := range []struct {
		pin     string
		program *ebpf.Program
		at      ebpf.AttachType
	}{{"connect4", d.objects.Connect4, ebpf.AttachCGroupInet4Connect}, {"connect6", d.objects.Connect6, ebpf.AttachCGroupInet6Connect}} {
		if l, there := d.connects[c.pin]; there {
			if !verify || onCgroup(l) {
				continue
			}
			d.writes.found("programs", "there was none at", c.pin)
			d.dropConnector(c.pin)
		}
		l, err := d.pinned(c.pin, c.program, onCgroup, func() (link.Link, error) {
			root, err := CgroupRoot()
			if err != nil {
				return nil, err
			}
			return link.AttachCgroup(link.CgroupOptions{Path: root, Attach: c.at, Program: c.program})
		})
		if err != nil {
			return fmt.Errorf("see connections (%s): %w", c.pin, err)
		}
		d.connects[c.pin] = l
	}
	return nil
}

func (d *Datapath) disconnect() {
	for _, pin := range []string{"connect4", "connect6"} {
		d.dropConnector(pin)
	}
}

func (d *Datapath) dropConnector(pin string) {
	d.unpin(pin, d.connects[pin])
	delete(d.connects, pin)
}

func onCgroup(l link.Link) bool {
	info, err := l.Info()
	if err != nil {
		return false
	}
	on := info.Cgroup()
	return on != nil && on.CgroupId != 0
}

// pinned takes over the link with that pin, replacing its program, or makes one.
func (d *Datapath) pinned(pin string, p *ebpf.Program, right func(link.Link) bool, attach func() (link.Link, error)) (link.Link, error) {
	path := filepath.Join(d.linkDir(), pin)
	if l, err := link.LoadPinnedLink(path, nil); err == nil {
		if right(l) {
			if err := l.Update(p); err != nil {
				l.Close()
				return nil, fmt.Errorf("replace the program: %w", err)
			}
			return l, nil
		}
		l.Close()
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove a stale pin: %w", err)
		}
	}
	l, err := attach()
	if err != nil {
		return nil, err
	}
	if err := l.Pin(path); err != nil {
		l.Close()
		return nil, fmt.Errorf("pin the program: %w", err)
	}
	d.writes.Add(1)
	return l, nil
}

// unpin takes off the program of a link, also of one that an agent before us made.
func (d *Datapath) unpin(pin string, l link.Link) {
	path := filepath.Join(d.linkDir(), pin)
	if l == nil {
		var err error
		if l, err = link.LoadPinnedLink(path, nil); err != nil {
			return
		}
	}
	if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) && !errors.Is(err, link.ErrNotSupported) {
		d.cfg.Log.Warn("take a program off", "pin", pin, "error", err)
	}
	l.Close()
	os.Remove(path)
	d.writes.Add(1)
}

func standPinOf(cookie uint64) string { return standPin + strconv.FormatUint(cookie, 10) }

// steer puts a program of its own into the namespace, that knows which one it is in.
func (d *Datapath) steer(s *stand) error {
	here := func(l link.Link) bool { return inNamespace(l, s.ns.ino) }
	if s.link != nil {
		if here(s.link) {
			return nil
		}
		d.writes.found("programs", "there was none in namespace", s.cookie)
		d.unsteer(s.cookie, s.link)
		s.link = nil
	}
	program, err := d.loadSteer(s.cookie)
	if err != nil {
		return err
	}
	defer program.Close()
	s.link, err = d.pinned(standPinOf(s.cookie), program, here, func() (link.Link, error) {
		return link.AttachNetNs(int(s.ns.file.Fd()), program)
	})
	if err != nil {
		return fmt.Errorf("steer connections: %w", err)
	}
	return nil
}

func (d *Datapath) unsteer(cookie uint64, l link.Link) { d.unpin(standPinOf(cookie), l) }

func inNamespace(l link.Link, inode uint64) bool {
	info, err := l.Info()
	if err != nil {
		return false
	}
	in := info.NetNs()
	return in != nil && uint64(in.NetnsInode) == inode
}

// loadSteer loads the program for one namespace.
func (d *Datapath) loadSteer(cookie uint64) (*ebpf.Program, error) {
	spec := d.spec.Copy()
	if err := spec.Variables["here"].Set(cookie); err != nil {
		return nil, err
	}
	var only struct {
		Steer *ebpf.Program `ebpf:"steer"`
	}
	if err := spec.LoadAndAssign(&only, &ebpf.CollectionOptions{MapReplacements: mapsByName(&d.objects.MoireMaps)}); err != nil {
		return nil, explain(fmt.Errorf("load the program of a namespace: %w", err))
	}
	return only.Steer, nil
}

// mapsByName are the maps as the programs call them.
func mapsByName(m *bpf.MoireMaps) map[string]*ebpf.Map {
	out := map[string]*ebpf.Map{}
	v := reflect.ValueOf(m).Elem()
	for i := range v.NumField() {
		out[v.Type().Field(i).Tag.Get("ebpf")] = v.Field(i).Interface().(*ebpf.Map)
	}
	return out
}

// lostNamespace looks for the namespace in which an agent before us has pinned a
// program; nil: it is gone, or nobody can get there.
func lostNamespace(pin string) (*namespace, error) {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return nil, nil
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil || info.NetNs() == nil || info.NetNs().NetnsInode == 0 {
		return nil, nil
	}
	return findNamespace(uint64(info.NetNs().NetnsInode))
}

// findNamespace looks where namespaces are shown: by processes and by mounts.
func findNamespace(inode uint64) (*namespace, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); strings.Contains(line, " - nsfs ") && len(fields) > 4 {
			paths = append(paths, fields[4])
		}
	}
	for _, path := range paths {
		n, err := openNamespace(path)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoNamespace) || errors.Is(err, fs.ErrPermission) {
				continue // gone meanwhile, or a namespace of another kind
			}
			return nil, err
		}
		if n.ino == inode {
			return n, nil
		}
		n.close()
	}
	return nil, nil
}
