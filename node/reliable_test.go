package node

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
)

// serve runs a web server in a namespace; the answer stops it.
func serve(t *testing.T, netns, port string) (stop func()) {
	t.Helper()
	www := t.TempDir()
	if err := os.WriteFile(filepath.Join(www, "index.html"), []byte("hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("nsenter", "--net="+netns, "busybox", "httpd", "-f", "-p", port, "-h", www)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var ended bool
	stop = func() {
		if !ended {
			c.Process.Kill()
			c.Wait()
			ended = true
		}
	}
	t.Cleanup(stop)
	return stop
}

func fetches(netns, url string) error {
	out, err := exec.Command("nsenter", "--net="+netns, "timeout", "3", "busybox", "wget", "-q", "-O", "-", url).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("hello")) {
		return fmt.Errorf("%s: %w: %s", url, err, out)
	}
	return nil
}

// reboot takes away everything of the node that a machine loses when it
// starts anew; its disk stays, and so do the namespaces of Workloads here.
func (m *machine) reboot() {
	m.t.Helper()
	m.kill()
	for _, line := range strings.Split(sh(m.t, "ip", "-n", ns(m.t, "n1"), "-o", "link"), "\n") {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], "mo") {
			name, _, _ := strings.Cut(strings.TrimSuffix(f[1], ":"), "@")
			sh(m.t, "ip", "-n", ns(m.t, "n1"), "link", "del", name)
		}
	}
	if err := unix.Unmount(filepath.Join(m.cfg.RunDir, "bpf"), unix.MNT_DETACH); err != nil {
		m.t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(m.cfg.RunDir, "presence", "*"))
	if err != nil {
		m.t.Fatal(err)
	}
	for _, f := range files {
		unix.Unmount(f, unix.MNT_DETACH)
	}
	if err := os.RemoveAll(m.cfg.RunDir); err != nil {
		m.t.Fatal(err)
	}
}

// TestFromDiskAlone: a node that starts anew without a control plane is what
// its disk says: interfaces, taps, Services, names; and what is then broken in
// the kernel is found, repaired and told.
func TestFromDiskAlone(t *testing.T) {
	needProgram(t, "busybox", "kdig")
	m := newMachine(t)
	m.writeSnapshot(withNames)
	m.start()
	w1, w2 := addNetns(t, ns(t, "w1")), addNetns(t, ns(t, "w2"))
	web, client := m.attach("web", w1), m.attach("client", w2)
	tap := m.attachTap("vm", nil)[0]
	serve(t, w1, "8080")
	m.kill()
	vips := []netip.Addr{netip.MustParseAddr("10.0.0.200"), netip.MustParseAddr("fd00::200")}
	m.writeSnapshot(func(s *snapshot.Snapshot) {
		withNames(s)
		s.Services = map[snapshot.ServiceKey]snapshot.Service{}
		for i, vip := range vips {
			k := snapshot.ServiceKey{Addr: snapshot.Addr{VNI: 100, IP: vip}, Protocol: 6, Port: 80}
			s.Services[k] = snapshot.Service{ServiceKey: k, Project: "shop", Name: "web", Backends: []snapshot.Backend{
				{Addr: snapshot.Addr{VNI: 100, IP: web.Addresses[i]}, Port: 8080, Weight: 1, Node: "n1"},
			}}
		}
	})
	m.start()
	m.reboot()
	if err := ping(w2, web.Addresses[0]); err == nil {
		t.Fatal("it was no reboot")
	}
	m.start()
	vm := m.guest(ns(t, "vm"), tap)
	sh(t, "ip", "-n", ns(t, "vm"), "addr", "add", tap.Addresses[0].String()+"/24", "dev", "vm0")
	works := func(what string) {
		t.Helper()
		eventually(t, what, func() bool { return ping(w2, web.Addresses[0]) == nil })
		for _, vip := range vips {
			if err := fetches(w2, "http://"+netip.AddrPortFrom(vip, 80).String()+"/index.html"); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		for _, from := range []string{w1, w2} {
			if err := ping(from, tap.Addresses[0]); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := ping(vm, client.Addresses[0]); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if out := sh(t, "nsenter", "--net="+w2, "kdig", "+short", "@169.254.169.253", "web.shop.moire.internal", "A"); !strings.Contains(out, web.Addresses[0].String()) && !strings.Contains(out, vips[0].String()) {
			t.Errorf("%s: names: %q", what, out)
		}
	}
	works("after a reboot")
	m.plant(t)
	if ping(w2, web.Addresses[0]) == nil {
		t.Error("nothing was planted")
	}
	deadline := time.Now().Add(compareEvery + 3*time.Second)
	for ping(w2, web.Addresses[0]) != nil && time.Now().Before(deadline) {
		time.Sleep(100 * time.Millisecond)
	}
	works("after a repair")
	st, err := m.client().Status(t.Context())
	if err != nil || st.Repairs == 0 || !strings.Contains(st.LastRepair, "endpoints") {
		t.Errorf("%d repairs, %q, %v", st.Repairs, st.LastRepair, err)
	}
	m.stop()
}

// plant empties the table of endpoints.
func (m *machine) plant(t *testing.T) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(m.cfg.RunDir, "bpf", "n1", "layout-*", "endpoints"))
	if err != nil || len(paths) != 1 {
		t.Fatal(paths, err)
	}
	table, err := ebpf.LoadPinnedMap(paths[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	var keys [][]byte
	var k, v []byte
	for it := table.Iterate(); it.Next(&k, &v); {
		keys = append(keys, bytes.Clone(k))
	}
	for _, k := range keys {
		if err := table.Delete(k); err != nil {
			t.Fatal(err)
		}
	}
	// Sessions that exist look again.
	m.raiseEpoch(t, filepath.Dir(paths[0]))
}

func (m *machine) raiseEpoch(t *testing.T, dir string) {
	t.Helper()
	table, err := ebpf.LoadPinnedMap(filepath.Join(dir, "control"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	row := make([]byte, table.ValueSize())
	if err := table.Lookup(uint32(0), &row); err != nil {
		t.Fatal(err)
	}
	row[3]++
	if err := table.Update(uint32(0), row, ebpf.UpdateAny); err != nil {
		t.Fatal(err)
	}
}

// TestHealth: what is checked from inside the Network is known at once, and a
// backend that dies is out within Interval times Failures.
func TestHealth(t *testing.T) {
	needProgram(t, "busybox")
	m := newMachine(t)
	m.writeSnapshot(nil)
	m.start()
	w := addNetns(t, ns(t, "w1"))
	i := m.attach("web", w)
	stop := serve(t, w, "8080")
	m.kill()
	const interval, failures = 500 * time.Millisecond, 3
	m.writeSnapshot(func(s *snapshot.Snapshot) {
		// Not even a Policy that denies everything stands in the way.
		for k, set := range s.Policies {
			set.Default.Allow = false
			s.Policies[k] = set
		}
		s.Checks = map[snapshot.CheckKey]snapshot.Check{}
		for _, ip := range i.Addresses {
			for _, k := range []snapshot.CheckKey{{Kind: "icmp"}, {Kind: "tcp", Port: 8080}, {Kind: "http", Port: 8080, Path: "/index.html"}, {Kind: "http", Port: 8080, Path: "/none"}} {
				k.Addr = snapshot.Addr{VNI: 100, IP: ip}
				s.Checks[k] = snapshot.Check{CheckKey: k, Interval: interval, Timeout: 200 * time.Millisecond, Failures: failures, Successes: 1}
			}
		}
	})
	m.start()
	known := func() (healthy, sick int) {
		var b bytes.Buffer
		if err := m.client().Dump(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(b.String(), "\n") {
			if strings.HasPrefix(line, "health ") && strings.Contains(line, "healthy=true") {
				healthy++
			} else if strings.HasPrefix(line, "health ") {
				sick++
			}
		}
		return healthy, sick
	}
	eventually(t, "all is known", func() bool { h, s := known(); return h == 6 && s == 2 })
	stop()
	died := time.Now()
	eventually(t, "it is out", func() bool { h, s := known(); return h == 2 && s == 6 })
	if d := time.Since(died); d > interval*failures+400*time.Millisecond {
		t.Errorf("out after %s", d)
	}
	serve(t, w, "8080")
	eventually(t, "it is back", func() bool { h, _ := known(); return h == 6 })
	for _, r := range m.records(t) {
		if r.Verdict == "deny" && r.Destination.Workload == "web" {
			t.Errorf("a check was denied: %+v", r)
		}
	}
	if err := m.client().Detach(t.Context(), local.Detach{Project: "shop", Workload: "web"}); err != nil {
		t.Fatal(err)
	}
	m.stop()
}
