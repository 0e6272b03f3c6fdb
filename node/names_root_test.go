package node

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/node/local"
	"moire.dev/moire/node/run"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// twoTenants adds a Network of another Domain with the same prefixes, and a
// name service to both.
func twoTenants(s *snapshot.Snapshot) {
	const bank policy.Identity = 99
	s.Names = map[snapshot.VNI]snapshot.DNS{}
	n := s.Networks[100]
	n.VNI, n.Project, n.Domain = 200, "bank", "other"
	s.Networks[200] = n
	for _, k := range []string{"10.0.0.64/28", "fd00::100/120"} {
		b := snapshot.BlockKey{VNI: 200, CIDR: netip.MustParsePrefix(k)}
		s.Blocks[b] = snapshot.Block{BlockKey: b}
	}
	s.Identities[bank] = snapshot.Identity{Number: bank, Project: "bank", Account: "default"}
	for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
		s.Policies[snapshot.PolicyKey{VNI: 200, Identity: bank, Direction: d}] = policy.Set{Default: policy.DefaultRule{ID: "default/bank/front/open", Allow: true}}
	}
	for vni, project := range map[snapshot.VNI]string{100: "shop", 200: "bank"} {
		s.Names[vni] = snapshot.DNS{VNI: vni, Zone: "moire.internal", TTL: 5 * time.Second, Order: "fixed", NoForward: true,
			Search: []string{project + ".moire.internal", "moire.internal"}}
	}
}

// in runs a command in a namespace.
func in(t *testing.T, netns string, command ...string) string {
	t.Helper()
	return sh(t, append([]string{"nsenter", "--net=" + netns}, command...)...)
}

// tenants are two Workloads of one name and one address in two Domains.
type tenants struct {
	*machine
	shop, bank string // namespaces
	addrs      []netip.Addr
}

func newTenants(t *testing.T, edit func(*snapshot.Snapshot)) *tenants {
	t.Helper()
	needProgram(t, "kdig")
	x := &tenants{machine: newMachine(t)}
	x.writeSnapshot(func(s *snapshot.Snapshot) {
		twoTenants(s)
		if edit != nil {
			edit(s)
		}
	})
	x.start()
	x.shop, x.bank = addNetns(t, ns(t, "shop")), addNetns(t, ns(t, "bank"))
	for _, c := range []struct {
		project, netns string
		labels         map[string]string
	}{{"shop", x.shop, map[string]string{"app": "web"}}, {"bank", x.bank, nil}} {
		got, err := x.client().Attach(t.Context(), local.Attach{Project: c.project, Workload: "web", Networks: []string{"front"}, Netns: c.netns, Labels: c.labels, Persist: true})
		if err != nil {
			t.Fatal(err)
		}
		if x.addrs != nil && !slices.Equal(x.addrs, got.Interfaces[0].Addresses) {
			t.Fatalf("the addresses are not the same: %v, %v", x.addrs, got.Interfaces[0].Addresses)
		}
		x.addrs = got.Interfaces[0].Addresses
	}
	return x
}

func TestNamesInTwoDomains(t *testing.T) {
	x := newTenants(t, nil)
	for _, c := range []struct{ netns, own, other string }{{x.shop, "shop", "bank"}, {x.bank, "bank", "shop"}} {
		for _, server := range []string{"@169.254.169.253", "@fd00:4d4f:4952:45::53"} {
			for _, how := range []string{"+notcp", "+tcp"} {
				for i, kind := range []string{"A", "AAAA"} {
					if got := in(t, c.netns, "kdig", server, how, "+short", "+timeout=2", "web."+c.own+".moire.internal", kind); strings.TrimSpace(got) != x.addrs[i].String() {
						t.Errorf("%s %s %s: %q", c.own, server, how, got)
					}
				}
				if got := in(t, c.netns, "kdig", server, how, "web."+c.other+".moire.internal", "A"); !strings.Contains(got, "NXDOMAIN") || strings.Contains(got, x.addrs[0].String()) {
					t.Errorf("%s is told of %s:\n%s", c.own, c.other, got)
				}
			}
		}
		if got := in(t, c.netns, "kdig", "@169.254.169.253", "+short", "-x", x.addrs[1].String()); strings.TrimSpace(got) != "web."+c.own+".moire.internal." {
			t.Errorf("%s: reverse %q", c.own, got)
		}
		if got := in(t, c.netns, "kdig", "@169.254.169.253", "+edns", "nobody."+c.own+".moire.internal", "AAAA"); !strings.Contains(got, "NXDOMAIN") ||
			!strings.Contains(got, "SOA") || !strings.Contains(got, "UDP size: 1232 B") {
			t.Errorf("%s: negative\n%s", c.own, got)
		}
	}
	t.Run("resolv.conf", func(t *testing.T) { x.resolvConf(t) })
	t.Run("repaired", func(t *testing.T) {
		for _, breakIt := range [][]string{
			{"nsenter", "--net=" + x.cfg.RunDir + "/presence/moire-n1", "ip", "link", "del", "n100"},
			{"nsenter", "--net=" + x.cfg.RunDir + "/presence/moire-n1", "ip", "addr", "del", "169.254.169.253/32", "dev", "n100"},
			{"umount", x.cfg.RunDir + "/presence/moire-n1"},
		} {
			sh(t, breakIt...)
			eventually(t, "names are answered again after "+strings.Join(breakIt[1:], " "), func() bool {
				shown := exec.Command("mountpoint", "-q", x.cfg.RunDir+"/presence/moire-n1").Run() == nil
				return shown && x.resolves(x.shop, "web.shop.moire.internal")
			})
		}
	})
	t.Run("killed", func(t *testing.T) {
		x.kill()
		if x.resolves(x.shop, "web.shop.moire.internal") {
			t.Error("names need the agent, but somebody answers")
		}
		began := time.Now()
		x.start()
		for !x.resolves(x.bank, "web.bank.moire.internal") {
			if time.Since(began) > 3*time.Second {
				t.Fatal("names are not answered after a restart")
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Logf("answered %s after the start of the agent", time.Since(began).Round(time.Millisecond))
	})
	t.Run("left", func(t *testing.T) {
		if err := x.client().Detach(t.Context(), local.Detach{Project: "bank", Workload: "web"}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the node left the Network", func() bool {
			return !strings.Contains(sh(t, "nsenter", "--net="+x.cfg.RunDir+"/presence/moire-n1", "ip", "-o", "link"), "n200")
		})
		if !x.resolves(x.shop, "web.shop.moire.internal") {
			t.Error("the other Network has no names any more")
		}
	})
	x.stop()
}

// resolvConf: commands of ours and namespaces of others find the name service.
func (x *tenants) resolvConf(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	code, err := run.Run(t.Context(), run.Config{
		Socket: x.cfg.socket(), RunDir: x.cfg.RunDir, Project: "bank", Networks: []string{"front"},
		Command: []string{"getent", "ahostsv4", "web"}, Stdout: out, Stderr: out, Warn: func(err error) { t.Error(err) },
	})
	got, _ := os.ReadFile(out.Name())
	if code != 0 || err != nil || !strings.HasPrefix(string(got), x.addrs[0].String()) {
		t.Errorf("a command finds %q, code %d, %v", got, code, err)
	}
	file := filepath.Join(x.cfg.EtcNetns, ns(t, "shop"), "resolv.conf")
	if got, err := os.ReadFile(file); err != nil || !strings.HasSuffix(string(got), "nameserver 169.254.169.253\nsearch shop.moire.internal moire.internal\n") {
		t.Errorf("%s is %q, %v", file, got, err)
	}
}

func (x *tenants) resolves(netns, name string) bool {
	out, err := exec.Command("nsenter", "--net="+netns, "kdig", "@169.254.169.253", "+short", "+time=1", "+retry=0", name, "A").CombinedOutput()
	return err == nil && strings.TrimSpace(string(out)) == x.addrs[0].String()
}

// listenIn serves HTTP inside a namespace.
func listenIn(t *testing.T, netns, addr string, h http.Handler) {
	t.Helper()
	l, err := inNetns(netns, func() (net.Listener, error) { return net.Listen("tcp", addr) })
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	var wg sync.WaitGroup
	wg.Go(func() { s.Serve(l) })
	t.Cleanup(func() { s.Close(); wg.Wait() })
}

// inNetns runs f on a thread inside; the thread ends with it.
func inNetns[T any](netns string, f func() (T, error)) (out T, err error) {
	done := make(chan bool)
	go func() {
		defer close(done)
		var fd int
		runtime.LockOSThread() // never unlocked: the thread ends here
		if fd, err = unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
		if err = unix.Setns(fd, unix.CLONE_NEWNET); err == nil {
			out, err = f()
		}
	}()
	<-done
	return out, err
}

// TestMetadata: from inside, by whoever the node knows, in two Networks of the
// same addresses.
func TestMetadata(t *testing.T) {
	needProgram(t, "curl")
	x := newTenants(t, func(s *snapshot.Snapshot) {
		for vni, to := range map[snapshot.VNI]string{100: "http://10.0.0.64:8775/base", 200: "http://web.bank.moire.internal:8775"} {
			n := s.Names[vni]
			n.Metadata = to
			s.Names[vni] = n
		}
	})
	tell := func(who string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			json.NewEncoder(w).Encode(map[string]any{"who": who, "path": q.URL.Path, "header": q.Header})
		})
	}
	endpoint := fmt.Sprintf("%s:8775", x.addrs[0])
	if endpoint != "10.0.0.64:8775" && endpoint != "10.0.0.65:8775" {
		t.Logf("the endpoint is at %s", endpoint)
	}
	curl := func(netns string) string {
		return in(t, netns, "curl", "-sS", "-m", "15", "-w", "%{http_code}", "-H", "X-Moire-Project: root", "-H", "x-forwarded-for: 1.2.3.4", "-H", "X-Kept: yes", "http://169.254.169.254/v1/me")
	}
	if got := curl(x.bank); !strings.Contains(got, "502") || !strings.Contains(got, "does not answer") {
		t.Errorf("no endpoint: %s", got)
	}
	listenIn(t, x.bank, endpoint, tell("bank"))
	listenIn(t, x.shop, endpoint, tell("shop"))
	for netns, project := range map[string]string{x.bank: "bank", x.shop: "shop"} {
		got := curl(netns)
		path := map[string]string{"bank": "/v1/me", "shop": "/base/v1/me"}[project]
		for _, want := range []string{`"who":"` + project, `"path":"` + path, `"X-Moire-Project":["` + project + `"]`, `"X-Moire-Workload":["web"]`, `"X-Moire-Network":["` + project + `/front"]`,
			`"X-Forwarded-For":["` + x.addrs[0].String() + `"]`, `"X-Kept":["yes"]`, "200"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %s in %s", project, want, got)
			}
		}
		if strings.Contains(got, "root") || strings.Contains(got, "1.2.3.4") {
			t.Errorf("%s: what the client claims passed: %s", project, got)
		}
	}
	x.stop()
}
