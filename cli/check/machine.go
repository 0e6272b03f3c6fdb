package check

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Config says where things are to live on the machine.
type Config struct {
	// StateDir and RunDir as given to moired and moire-node.
	StateDir, RunDir string
	// API and Discovery are the TCP ports, VXLAN the UDP port.
	API, Discovery, VXLAN int
	// Running: a control plane runs here, so its ports are taken by it.
	Running bool
	// Root of the file system. Default "/"; tests put another in its place.
	Root string
}

func (c Config) path(p string) string {
	if c.Root == "" {
		return p
	}
	return filepath.Join(c.Root, p)
}

// Machine asks everything that needs no other program.
func Machine(c Config) []Result {
	return []Result{
		c.privileges(),
		c.kernel(),
		c.module("veth"),
		c.filesystem(),
		c.port("port-api", "tcp", c.API, "moired --api-listen"),
		c.port("port-discovery", "tcp", c.Discovery, "moired --discovery-listen"),
		c.port("port-vxlan", "udp", c.VXLAN, ""),
		clock(),
		c.space("disk-state", c.StateDir, 256<<20, 1<<30),
		c.space("disk-run", c.RunDir, 8<<20, 32<<20),
		c.number("inotify-instances", "fs.inotify.max_user_instances", 128),
		c.number("inotify-watches", "fs.inotify.max_user_watches", 8192),
		files(),
		c.memory(),
	}
}

// Capabilities that the agent needs, by number; see capability.h.
var needed = []struct {
	bit  uint
	name string
}{
	{12, "CAP_NET_ADMIN"}, {13, "CAP_NET_RAW"}, {21, "CAP_SYS_ADMIN"}, {39, "CAP_BPF"},
}

func (c Config) privileges() Result {
	const id = "privileges"
	text, err := os.ReadFile(c.path("/proc/self/status"))
	if err != nil {
		return fail(id, "mount /proc", "the capabilities of this process cannot be read: %v", err)
	}
	var effective uint64
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "CapEff:"); found {
			effective, err = strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		}
	}
	if err != nil {
		return fail(id, "mount /proc", "the capabilities of this process cannot be read: %v", err)
	}
	var missing []string
	for _, n := range needed {
		if effective&(1<<n.bit) == 0 {
			missing = append(missing, n.name)
		}
	}
	if len(missing) > 0 {
		return fail(id, "run it as root: sudo moire check; in a container give it --privileged", "missing: %s", strings.Join(missing, ", "))
	}
	return ok(id, "every capability that the agent needs")
}

func (c Config) kernel() Result {
	const id = "kernel-version"
	release, err := os.ReadFile(c.path("/proc/sys/kernel/osrelease"))
	if err != nil {
		return fail(id, "mount /proc", "the kernel's version cannot be read: %v", err)
	}
	text := strings.TrimSpace(string(release))
	var major, minor int
	if n, _ := fmt.Sscanf(text, "%d.%d", &major, &minor); n != 2 {
		return warn(id, "run a Linux kernel of version 6.6 or later", "unknown version %q", text)
	}
	if major < 6 || major == 6 && minor < 6 {
		return fail(id, "boot Linux 6.6 or later; Debian 13 and Ubuntu 24.04 have one", "Linux %s has no tcx, with which programs are attached to interfaces", text)
	}
	return ok(id, "Linux %s", text)
}

// module looks whether the kernel has this kind of interface loaded, built in,
// or can load it.
func (c Config) module(name string) Result {
	id := "module-" + name
	if _, err := os.Stat(c.path("/sys/module/" + name)); err == nil {
		return ok(id, "loaded")
	}
	if symbols, err := os.ReadFile(c.path("/proc/kallsyms")); err == nil && strings.Contains(string(symbols), " "+name+"_newlink") {
		return ok(id, "built in")
	}
	release, err := os.ReadFile(c.path("/proc/sys/kernel/osrelease"))
	if err != nil {
		return fail(id, "mount /proc", "the kernel's version cannot be read: %v", err)
	}
	dir := c.path("/lib/modules/" + strings.TrimSpace(string(release)))
	listed := false
	for _, list := range []string{"modules.builtin", "modules.dep"} {
		text, err := os.ReadFile(filepath.Join(dir, list))
		if err != nil {
			continue
		}
		listed = true
		if strings.Contains(string(text), "/"+name+".ko") {
			return ok(id, "in %s", list)
		}
	}
	if !listed {
		return warn(id, "if interfaces cannot be made, run on the host: modprobe "+name, "not loaded, and this machine does not list its modules (usual in containers and where %s is built in)", name)
	}
	return fail(id, "install the package with the kernel's extra modules (such as linux-modules-extra-$(uname -r)), then: modprobe "+name, "the kernel has no module %s", name)
}

func (c Config) filesystem() Result {
	const id = "bpffs"
	text, err := os.ReadFile(c.path("/proc/filesystems"))
	if err != nil {
		return fail(id, "mount /proc", "the kernel's file systems cannot be read: %v", err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[len(fields)-1] == "bpf" {
			return ok(id, "the kernel knows the bpf file system; the agent mounts one at %s/bpf", c.RunDir)
		}
	}
	return fail(id, "boot a kernel with CONFIG_BPF_SYSCALL=y", "the kernel knows no bpf file system, where programs and maps outlive the agent")
}

// port looks whether the port is free.
func (c Config) port(id, protocol string, port int, flag string) Result {
	address := ":" + strconv.Itoa(port)
	var err error
	if protocol == "udp" {
		var p net.PacketConn
		if p, err = net.ListenPacket("udp", address); err == nil {
			err = p.Close()
		}
	} else {
		var l net.Listener
		if l, err = net.Listen("tcp", address); err == nil {
			err = l.Close()
		}
	}
	switch {
	case err == nil:
		return ok(id, "%s port %d is free", protocol, port)
	case errors.Is(err, syscall.EADDRINUSE) && c.Running && protocol == "tcp":
		return ok(id, "%s port %d is in use by the control plane that runs here", protocol, port)
	case errors.Is(err, syscall.EADDRINUSE):
		fix := fmt.Sprintf("stop what uses it: ss -lnp | grep :%d", port)
		if flag != "" {
			fix += "; or choose another port with " + flag
		} else {
			fix += "; a vxlan device of the kernel on that port takes the packets away"
		}
		return fail(id, fix, "%s port %d is in use", protocol, port)
	}
	return fail(id, "see why the address cannot be used: "+fmt.Sprintf("ss -lnp | grep :%d", port), "%s port %d: %v", protocol, port, err)
}

// clock: certificates are valid from and until.
func clock() Result {
	const id = "clock"
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return warn(id, "look at the clock yourself: date -u", "whether the clock is synchronised cannot be asked: %v", err)
	}
	const errorState, unsynchronised = 5, 0x40
	if state == errorState || t.Status&unsynchronised != 0 {
		return warn(id, "run a time service, such as: apt install systemd-timesyncd", "the clock is not synchronised; certificates are refused when clocks differ by minutes")
	}
	return ok(id, "synchronised")
}

// space looks at the file system that holds dir, or will hold it.
func (c Config) space(id, dir string, least, good uint64) Result {
	at := c.path(dir)
	var fsys unix.Statfs_t
	for {
		err := unix.Statfs(at, &fsys)
		if err == nil {
			break
		}
		if parent := filepath.Dir(at); errors.Is(err, fs.ErrNotExist) && parent != at {
			at = parent
			continue
		}
		return fail(id, "make the directory usable", "%s: %v", dir, err)
	}
	if fsys.Flags&unix.ST_RDONLY != 0 {
		return fail(id, "mount it writable, or choose another directory with --dir or --run-dir", "%s is on a read-only file system", dir)
	}
	free := fsys.Bavail * uint64(fsys.Bsize)
	fix := "free space there: du -xh --max-depth=2 " + at + " | sort -h | tail"
	switch {
	case free < least:
		return fail(id, fix, "%s: only %d MiB are free, %d MiB are needed", dir, free>>20, least>>20)
	case free < good:
		return warn(id, fix, "%s: %d MiB are free; %d MiB are recommended", dir, free>>20, good>>20)
	}
	return ok(id, "%s: %d MiB are free", dir, free>>20)
}

func (c Config) number(id, sysctl string, least int) Result {
	text, err := os.ReadFile(c.path("/proc/sys/" + strings.ReplaceAll(sysctl, ".", "/")))
	if err != nil {
		return warn(id, "look at it yourself: sysctl "+sysctl, "%s cannot be read: %v", sysctl, err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return warn(id, "look at it yourself: sysctl "+sysctl, "%s is %q", sysctl, strings.TrimSpace(string(text)))
	}
	if n < least {
		return fail(id, fmt.Sprintf("sysctl -w %s=%d, and write it into /etc/sysctl.d/moire.conf", sysctl, least*4), "%s is %d, less than %d", sysctl, n, least)
	}
	return ok(id, "%s is %d", sysctl, n)
}

func files() Result {
	const id, least = "open-files", 4096
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return warn(id, "look at it yourself: ulimit -Hn", "the limit of open files cannot be read: %v", err)
	}
	if limit.Max < least {
		return fail(id, "ulimit -Hn 65536, or LimitNOFILE=65536 in the unit", "at most %d files may be open, less than %d", limit.Max, least)
	}
	return ok(id, "%d files may be open", limit.Max)
}

func (c Config) memory() Result {
	const id, least, good = "memory", 256, 768
	f, err := os.Open(c.path("/proc/meminfo"))
	if err != nil {
		return warn(id, "mount /proc", "the memory cannot be read: %v", err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var kib int
		if n, _ := fmt.Sscanf(s.Text(), "MemAvailable: %d kB", &kib); n != 1 {
			continue
		}
		mib := kib >> 10
		switch {
		case mib < least:
			return fail(id, "end other programs, or use a machine with more memory", "%d MiB are available; control plane and agent need %d", mib, least)
		case mib < good:
			return warn(id, "end other programs, or use a machine with more memory", "%d MiB are available; %d are recommended", mib, good)
		}
		return ok(id, "%d MiB are available", mib)
	}
	return warn(id, "look at it yourself: free -m", "/proc/meminfo does not say how much memory is available")
}
