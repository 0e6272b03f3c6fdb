package run

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestEnter: the command sees the namespace and its resolv.conf, and nothing of
// that is seen outside.
func TestEnter(t *testing.T) {
	needRoot(t)
	ns, err := newNamespace(t.TempDir() + "/ns")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.close()
	cmd := exec.Command("/proc/self/exe", "sh", "-c", "cat /proc/net/dev; cat /etc/resolv.conf")
	cmd.Env = append(os.Environ(), "MOIRE_TEST_ENTER="+ns.agentPath())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text := string(out)
	if n := strings.Count(text, ":"); n != 1 || !strings.Contains(text, "lo:") || !strings.HasSuffix(text, "nameserver 192.0.2.53\n") {
		t.Errorf("inside there is\n%s", text)
	}
	own, err := os.ReadFile(resolvConf)
	if err == nil && strings.Contains(string(own), "192.0.2.53") {
		t.Error("the machine has the resolver of the workload")
	}
}

func TestEnterRefuses(t *testing.T) {
	for _, c := range []struct {
		netns   string
		command []string
		code    int
		want    string
	}{
		{"/proc/self/ns/net", nil, 2, "no command"},
		{"/proc/self/ns/net", []string{"no-such-program"}, CodeNotFound, "not found"},
		{"/nowhere", []string{"true"}, 1, "is not there"},
	} {
		code, err := Enter(c.netns, "", "", c.command)
		if code != c.code || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q %q: %d, %v", c.netns, c.command, code, err)
		}
	}
}
