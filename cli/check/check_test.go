package check

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeRoot is a file system with these files.
func fakeRoot(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestQuestions(t *testing.T) {
	const release = "proc/sys/kernel/osrelease"
	for _, c := range []struct {
		name  string
		files map[string]string
		ask   func(Config) Result
		want  State
		cause string
	}{
		{"root", map[string]string{"proc/self/status": "Name:\tx\nCapEff:\t000001ffffffffff\n"}, Config.privileges, OK, "every capability"},
		{"nobody", map[string]string{"proc/self/status": "CapEff:\t0000000000000000\n"}, Config.privileges, Failed, "CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN, CAP_BPF"},
		{"container", map[string]string{"proc/self/status": "CapEff:\t00000000a80425fb\n"}, Config.privileges, Failed, "missing: CAP_NET_ADMIN"},
		{"no proc", nil, Config.privileges, Failed, "cannot be read"},
		{"new kernel", map[string]string{release: "6.18.1-x\n"}, Config.kernel, OK, "6.18.1-x"},
		{"just new enough", map[string]string{release: "6.6.0\n"}, Config.kernel, OK, "6.6.0"},
		{"old kernel", map[string]string{release: "6.1.0-21-amd64\n"}, Config.kernel, Failed, "no tcx"},
		{"odd kernel", map[string]string{release: "rolling\n"}, Config.kernel, Warning, "rolling"},
		{"veth loaded", map[string]string{"sys/module/veth/refcnt": "0"}, veth, OK, "loaded"},
		{"veth built in", map[string]string{"proc/kallsyms": "0 t veth_newlink\n"}, veth, OK, "built in"},
		{"veth can be loaded", map[string]string{release: "6.6\n", "lib/modules/6.6/modules.dep": "kernel/drivers/net/veth.ko.xz:\n"}, veth, OK, "modules.dep"},
		{"veth missing", map[string]string{release: "6.6\n", "lib/modules/6.6/modules.dep": "kernel/a.ko:\n"}, veth, Failed, "no module veth"},
		{"veth unknown", map[string]string{release: "6.6\n"}, veth, Warning, "does not list"},
		{"bpffs", map[string]string{"proc/filesystems": "nodev\tproc\nnodev\tbpf\n"}, Config.filesystem, OK, "knows the bpf"},
		{"no bpffs", map[string]string{"proc/filesystems": "nodev\tproc\n\text4\n"}, Config.filesystem, Failed, "no bpf"},
		{"inotify", map[string]string{"proc/sys/fs/inotify/max": "1024\n"}, sysctl, OK, "is 1024"},
		{"inotify low", map[string]string{"proc/sys/fs/inotify/max": "64\n"}, sysctl, Failed, "is 64, less than 128"},
		{"inotify odd", map[string]string{"proc/sys/fs/inotify/max": "many\n"}, sysctl, Warning, "many"},
		{"inotify unknown", nil, sysctl, Warning, "cannot be read"},
		{"memory", map[string]string{"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:  4194304 kB\n"}, Config.memory, OK, "4096 MiB"},
		{"little memory", map[string]string{"proc/meminfo": "MemAvailable:  524288 kB\n"}, Config.memory, Warning, "512 MiB"},
		{"no memory", map[string]string{"proc/meminfo": "MemAvailable:  1024 kB\n"}, Config.memory, Failed, "1 MiB"},
		{"unknown memory", map[string]string{"proc/meminfo": ""}, Config.memory, Warning, "does not say"},
		{"space", nil, func(c Config) Result { return c.space("x", "/a/b", 0, 1) }, OK, "MiB are free"},
		{"little space", nil, func(c Config) Result { return c.space("x", "/a/b", 0, 1<<62) }, Warning, "are recommended"},
		{"no space", nil, func(c Config) Result { return c.space("x", "/a/b", 1<<62, 1<<63) }, Failed, "are needed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.ask(Config{Root: fakeRoot(t, c.files), RunDir: "/run/moire"})
			if got.State != c.want || !strings.Contains(got.Cause, c.cause) {
				t.Errorf("%+v, want %s with %q", got, c.want, c.cause)
			}
			if (got.Fix == "") != (got.State == OK) {
				t.Errorf("state %s with fix %q", got.State, got.Fix)
			}
		})
	}
}

func veth(c Config) Result   { return c.module("veth") }
func sysctl(c Config) Result { return c.number("x", "fs.inotify.max", 128) }

func TestPorts(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, err := net.ListenPacket("udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	tcp, udp := l.Addr().(*net.TCPAddr).Port, p.LocalAddr().(*net.UDPAddr).Port
	for _, c := range []struct {
		protocol string
		port     int
		running  bool
		want     State
	}{
		{"tcp", 0, false, OK}, {"udp", 0, false, OK},
		{"tcp", tcp, false, Failed}, {"tcp", tcp, true, OK},
		// Nothing of ours listens for VXLAN: whoever does takes it away.
		{"udp", udp, false, Failed}, {"udp", udp, true, Failed},
	} {
		if got := (Config{Running: c.running}).port("port-x", c.protocol, c.port, "--x"); got.State != c.want {
			t.Errorf("%+v: %+v", c, got)
		}
	}
}

func TestMachineAnswersEverything(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Machine(Config{StateDir: t.TempDir(), RunDir: t.TempDir()}) {
		if seen[r.ID] || r.ID == "" || r.Cause == "" {
			t.Errorf("not an answer, or the second with its id: %+v", r)
		}
		seen[r.ID] = true
	}
}

func TestReadKernel(t *testing.T) {
	got, err := ReadKernel([]byte(`[{"Name":"BPF links (tcx)","OK":true},{"Name":"x","OK":false,"Why":"w","Fix":"f"}]`))
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	if got[0] != (Result{ID: "kernel-bpf-links-tcx", State: OK, Cause: "BPF links (tcx)"}) || got[1] != (Result{ID: "kernel-x", State: Failed, Cause: "w", Fix: "f"}) {
		t.Errorf("%+v", got)
	}
	if !Bad(got) || Bad(got[:1]) {
		t.Error("Bad is wrong")
	}
	for _, text := range []string{"", "[]", "{}", "ok tcx"} {
		if _, err := ReadKernel([]byte(text)); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}
