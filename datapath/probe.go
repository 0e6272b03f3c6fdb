package datapath

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Check is one thing that the data path needs.
type Check struct {
	Name string
	OK   bool
	// Why it is not there, in one sentence; Fix is what to do.
	Why, Fix string
}

const newerKernel = "use Linux 6.6 or newer"

// Probe tries everything that the data path needs of this machine.
func Probe() []Check {
	var out []Check
	add := func(name string, err error, fix string) {
		c := Check{Name: name, OK: err == nil}
		if err != nil {
			c.Why, c.Fix = sentence(err), fix
		}
		out = append(out, c)
	}
	if err := privileged(); err != nil {
		// Without them every trial fails, and would be taken for an old kernel.
		add("privileges", err, "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN; only then can the kernel's features be tried")
		return out
	}
	add("privileges", nil, "")
	add("BPF system call", features.HaveProgramType(ebpf.SchedCLS), "build the kernel with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_ACT")
	add("longest-match tables", features.HaveMapType(ebpf.LPMTrie), newerKernel)
	add("LRU tables", features.HaveMapType(ebpf.LRUHash), newerKernel)
	add("ring buffer", features.HaveMapType(ebpf.RingBuf), newerKernel)
	add("redirect to a peer", features.HaveProgramHelper(ebpf.SchedCLS, asm.FnRedirectPeer), newerKernel)
	add("redirect to a neighbour", features.HaveProgramHelper(ebpf.SchedCLS, asm.FnRedirectNeigh), newerKernel)
	add("encapsulation by programs", features.HaveProgramHelper(ebpf.SchedCLS, asm.FnSkbAdjustRoom), newerKernel)
	add("BPF links on interfaces (tcx)", tcx(), newerKernel)
	add("BPF file system", fileSystem("bpf"), "build the kernel with CONFIG_BPF_SYSCALL; it brings the bpf file system")
	add("network namespaces", namespaces(), "build the kernel with CONFIG_NET_NS")
	add("veth pairs", veth(), "load the module: modprobe veth")
	return out
}

func sentence(err error) string {
	s := err.Error()
	if errors.Is(err, ebpf.ErrNotSupported) {
		return "the kernel does not have it"
	}
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		s = s[:i]
	}
	return s
}

func privileged() error {
	var hdr unix.CapUserHeader
	var data [2]unix.CapUserData
	hdr.Version = unix.LINUX_CAPABILITY_VERSION_3
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("cannot read the capabilities of this process: %w", err)
	}
	for _, c := range []struct {
		bit  int
		name string
	}{{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"}} {
		if data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			return fmt.Errorf("this process does not have %s", c.name)
		}
	}
	return nil
}

func fileSystem(name string) error {
	b, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return fmt.Errorf("cannot read /proc/filesystems: %w", err)
	}
	for _, line := range strings.Split(string(b), "\n") {
		if strings.TrimSpace(strings.TrimPrefix(line, "nodev")) == name {
			return nil
		}
	}
	return errors.New("the kernel does not have it")
}

// tcx attaches a program that does nothing to the loopback of this namespace
// for a moment.
func tcx() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	if err != nil {
		return err
	}
	defer p.Close()
	l, err := link.AttachTCX(link.TCXOptions{Interface: 1, Program: p, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return err
	}
	return l.Close()
}

// explain turns an error of loading into the sentence of the first thing that
// is missing; when nothing is, it says so, without the verifier's log.
func explain(err error) error {
	for _, c := range Probe() {
		if !c.OK {
			return fmt.Errorf("this machine lacks %s: %s; %s", c.Name, c.Why, c.Fix)
		}
	}
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		return fmt.Errorf("the kernel refuses a program although it has all that is needed (%w); please report it with the kernel version (uname -r)", refused.Cause)
	}
	return err
}
