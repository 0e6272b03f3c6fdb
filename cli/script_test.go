package cli

import (
	"encoding/base64"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite the golden parts of testdata/script")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"moire":      func() { os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
		"moired":     fakeMoired,
		"moire-node": fakeMoireNode,
	})
}

// TestScript runs the transcripts in testdata/script against a fake API server
// and fake agents.
//
// Commands beside those of testscript:
//
//	rc CODE command...        run and require this exit code; - is any
//	api put FILE              put the objects of a file into the server
//	api flows|explain FILE    what these resources answer
//	api delay DURATION        how long every answer takes
//	api watched N             wait until N watches are open
//	api sent                  wait until every watch has sent every event
//	api compact               forget the events, so that watches are too old
//	agent NODE                start an agent with a socket in $RUN
//	agent saw TEXT            require a request with this text
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setup,
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return isRoot(t), nil
			}
			return false, fmt.Errorf("unknown condition %s", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"rc": rcCommand, "api": apiCommand, "agent": agentCommand,
		},
	})
}

// isRoot fails instead of skipping where root is required.
func isRoot(t *testing.T) bool {
	root := os.Geteuid() == 0
	if !root && os.Getenv("MOIRE_REQUIRE_ROOT") == "1" {
		t.Error("this test needs root")
	}
	return root
}

// world is what one script plays with.
type world struct {
	api    *fakeAPI
	run    string
	agents map[string]*fakeAgent
}

func setup(env *testscript.Env) error {
	// Socket paths are short; the work directory may not be.
	run, err := os.MkdirTemp("", "moire-cli-")
	if err != nil {
		return err
	}
	w := &world{api: newFakeAPI(), run: run, agents: map[string]*fakeAgent{}}
	server := httptest.NewUnstartedServer(w.api)
	server.EnableHTTP2 = true
	server.StartTLS()
	env.Defer(func() {
		w.api.close()
		server.Close()
		for _, a := range w.agents {
			a.close()
		}
		os.RemoveAll(run)
	})
	home := filepath.Join(env.WorkDir, "home")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	kubeconfig := filepath.Join(env.WorkDir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(fakeKubeconfig(server)), 0o600); err != nil {
		return err
	}
	env.Values["world"] = w
	env.Setenv("SERVER", server.URL)
	env.Setenv("KUBECONFIG", kubeconfig)
	env.Setenv("HOME", home)
	env.Setenv("RUN", run)
	env.Setenv("TZ", "UTC")
	env.Setenv("PID", strconv.Itoa(os.Getpid()))
	return nil
}

func fakeKubeconfig(server *httptest.Server) string {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: admin
clusters:
  - {name: c, cluster: {server: %q, certificate-authority-data: %s}}
  - {name: foreign, cluster: {server: %[1]q}}
  - {name: gone, cluster: {server: "http://127.0.0.1:1"}}
users:
  - {name: admin, user: {token: admin}}
  - {name: tenant, user: {token: tenant}}
  - {name: nobody, user: {token: nobody}}
contexts:
  - {name: admin, context: {cluster: c, user: admin, namespace: shop}}
  - {name: tenant, context: {cluster: c, user: tenant, namespace: shop}}
  - {name: nobody, context: {cluster: c, user: nobody}}
  - {name: foreign, context: {cluster: foreign, user: admin}}
  - {name: gone, context: {cluster: gone, user: admin}}
`, server.URL, base64.StdEncoding.EncodeToString(ca))
}

func rcCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: rc CODE command...")
	}
	want, err := strconv.Atoi(args[0])
	if args[0] != "-" {
		ts.Check(err)
	}
	err = ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if code != want && args[0] != "-" {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

func apiCommand(ts *testscript.TestScript, neg bool, args []string) {
	w := ts.Value("world").(*world)
	if neg || len(args) == 0 {
		ts.Fatalf("usage: api put|flows|explain|delay|watched|sent|compact ...")
	}
	arg := ""
	if len(args) > 1 {
		arg = args[1]
	}
	switch args[0] {
	case "put":
		ts.Check(w.api.put(ts.ReadFile(arg)))
	case "flows", "explain":
		w.api.setVirtual(args[0], ts.ReadFile(arg))
	case "delay":
		d, err := time.ParseDuration(arg)
		ts.Check(err)
		w.api.setDelay(d)
	case "watched":
		n, err := strconv.Atoi(arg)
		ts.Check(err)
		eventually(ts, "watches", func() bool { return w.api.watchers() == n })
	case "sent":
		eventually(ts, "events sent", w.api.allSent)
	case "compact":
		w.api.compact()
	default:
		ts.Fatalf("unknown: api %s", args[0])
	}
}

func agentCommand(ts *testscript.TestScript, neg bool, args []string) {
	w := ts.Value("world").(*world)
	switch {
	case len(args) == 1:
		a, err := newFakeAgent(filepath.Join(w.run, args[0]+".sock"))
		ts.Check(err)
		w.agents[args[0]] = a
	case len(args) == 2 && args[0] == "saw":
		saw := false
		for _, a := range w.agents {
			saw = saw || strings.Contains(a.requests(), args[1])
		}
		if saw == neg {
			ts.Fatalf("agents saw %q: %v", args[1], saw)
		}
	default:
		ts.Fatalf("usage: agent NODE | agent saw TEXT")
	}
}

func eventually(ts *testscript.TestScript, what string, ok func() bool) {
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("waited too long for %s", what)
}
