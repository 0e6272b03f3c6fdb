package store

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

const declaredWorkload = `
apiVersion: moire.dev/v1alpha1
kind: Workload
metadata: {name: %s, labels: {from: intent}}
spec: {account: db, interfaces: [{network: net, addresses: [10.0.0.5]}]}
`

// worldRead is a way to read workloads, and what it says.
type worldRead struct {
	name string
	args []string
	want string
}

func readsOf(ns string) []worldRead {
	return []worldRead{
		{"table", []string{"get", "workloads"}, `
NAME       PHASE     NETWORK   ADDRESSES      NODE   AGE
both       Running   net       ["10.0.0.9"]   n1     AGE
declared             net                             AGE
reported   Running   net       ["10.0.0.9"]   n2     AGE
`},
		{"wide", []string{"get", "wl", "-o", "wide"}, `
NAME       PHASE     NETWORK   ADDRESSES      NODE   IDENTITY     REASON   AGE
both       Running   net       ["10.0.0.9"]   n1     4000000000            AGE
declared             net                                                   AGE
reported   Running   net       ["10.0.0.9"]   n2     4000000000            AGE
`},
		{"one", []string{"get", "workload", "both"}, `
NAME   PHASE     NETWORK   ADDRESSES      NODE   AGE
both   Running   net       ["10.0.0.9"]   n1     AGE
`},
		{"one that is only reported", []string{"get", "workload", "reported", "--no-headers"}, `
reported   Running   net   ["10.0.0.9"]   n2    AGE
`},
		{"labels are those of the intent", []string{"get", "workload", "-l", "from=world", "-o", "name"}, `
workload.moire.dev/reported
`},
		{"label of the intent", []string{"get", "workload", "-l", "from=intent", "-o", "name"}, `
workload.moire.dev/both
workload.moire.dev/declared
`},
		{"field", []string{"get", "workload", "--field-selector", "metadata.name=reported", "-o", "name"}, `
workload.moire.dev/reported
`},
		{"json", []string{"get", "workload", "both", "-o", "jsonpath={.kind} {.spec.account} {.status.phase} {.status.interfaces[0].vni} {.metadata.generation}\n"}, `
Workload db Running 77 1
`},
		{"kind and uid of what is only reported", []string{"get", "workload", "reported", "-o", "jsonpath={.apiVersion} {.kind} {.metadata.namespace}\n"}, `
moire.dev/v1alpha1 Workload ` + ns + `
`},
		{"pages", []string{"get", "workload", "--chunk-size=1", "-o", "name"}, `
workload.moire.dev/both
workload.moire.dev/declared
workload.moire.dev/reported
`},
		{"sorted by kubectl", []string{"get", "workload", "--sort-by=.status.node", "-o", "name"}, `
workload.moire.dev/declared
workload.moire.dev/both
workload.moire.dev/reported
`},
	}
}

// TestWorldGetAndList reads one workload that is declared and reported, one that
// is only declared and one that is only reported, in many ways.
func TestWorldGetAndList(t *testing.T) {
	ns := project(t)
	kubectl(t, fmt.Sprintf(declaredWorkload, "both"), "apply", "-n", ns, "-f", "-")
	kubectl(t, fmt.Sprintf(declaredWorkload, "declared"), "apply", "-n", ns, "-f", "-")
	shared.world.report(ns, "both", "Running", "n1", "from=world")
	shared.world.report(ns, "reported", "Running", "n2", "from=world")
	shared.world.report("elsewhere", "other", "Running", "n2", "from=world")

	for _, c := range readsOf(ns) {
		t.Run(c.name, func(t *testing.T) {
			eventually(t, func() string {
				got := kubectl(t, "", append(c.args, "-n", ns)...)
				got = regexp.MustCompile(`(?m)\d+(s|m|h|d|y)(\d+\w)?$`).ReplaceAllString(got, "AGE")
				if got != c.want[1:] {
					return fmt.Sprintf("got:\n%s\nwant:\n%s", got, c.want[1:])
				}
				return ""
			})
		})
	}
	all := kubectl(t, "", "get", "workloads", "-A", "-o", "name")
	if !strings.Contains(all, "workload.moire.dev/other") {
		t.Errorf("all namespaces lack a workload that was reported in one:\n%s", all)
	}
	yaml := kubectl(t, "", "get", "workload", "reported", "-n", ns, "-o", "yaml")
	for _, want := range []string{"identity: 4000000000", "uid: ", "resourceVersion: "} {
		if !strings.Contains(yaml, want) {
			t.Errorf("yaml lacks %q:\n%s", want, yaml)
		}
	}
}

func TestWorldNodes(t *testing.T) {
	shared.world.node("reported-node", "Ready")
	kubectl(t, "apiVersion: moire.dev/v1alpha1\nkind: Node\nmetadata: {name: switch}\nspec: {address: 192.0.2.9, external: true}\n", "apply", "-f", "-")
	eventually(t, func() string {
		out := kubectl(t, "", "get", "nodes.moire.dev")
		for _, want := range []string{`reported-node\s+192.0.2.1\s+Ready`, `switch\s+192.0.2.9`} {
			if !regexp.MustCompile(want).MatchString(out) {
				return fmt.Sprintf("no line like %s in:\n%s", want, out)
			}
		}
		return ""
	})
}

// follower reads lines of a command that goes on.
type follower struct {
	t     *testing.T
	lines chan string
	seen  []string
}

func follow(t *testing.T, args ...string) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+shared.kubeconfig)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f := &follower{t: t, lines: make(chan string, 100)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(f.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			f.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = cmd.Wait() // it was killed
	})
	return f
}

// want waits for a line that matches.
func (f *follower) want(pattern string) {
	f.t.Helper()
	re := regexp.MustCompile(pattern)
	limit := time.After(20 * time.Second)
	for {
		select {
		case l, open := <-f.lines:
			if !open {
				f.t.Fatalf("the command ended before %q; lines:\n%s", pattern, strings.Join(f.seen, "\n"))
			}
			f.seen = append(f.seen, l)
			if re.MatchString(l) {
				return
			}
		case <-limit:
			f.t.Fatalf("no line like %q; lines:\n%s", pattern, strings.Join(f.seen, "\n"))
		}
	}
}

func TestWorldWatch(t *testing.T) {
	ns := project(t)
	kubectl(t, fmt.Sprintf(declaredWorkload, "first"), "apply", "-n", ns, "-f", "-")
	f := follow(t, "get", "workloads", "-n", ns, "-w", "--output-watch-events")
	f.want(`^EVENT\s+NAME\s+PHASE`)
	f.want(`^ADDED\s+first\s+net`)
	shared.world.report(ns, "second", "Running", "n1")
	f.want(`^ADDED\s+second\s+Running`)
	shared.world.report(ns, "first", "Running", "n1")
	f.want(`^MODIFIED\s+first\s+Running.*n1`)
	shared.world.report(ns, "first", "Stale", "n1")
	f.want(`^MODIFIED\s+first\s+Stale`)
	kubectl(t, "", "label", "workload", "first", "-n", ns, "more=labels")
	f.want(`^MODIFIED\s+first\s+Stale`)
	shared.world.forget(ns, "first")
	f.want(`^MODIFIED\s+first\s+net`)
	shared.world.forget(ns, "second")
	f.want(`^DELETED\s+second\s+Running`)
	kubectl(t, fmt.Sprintf(declaredWorkload, "third"), "apply", "-n", ns, "-f", "-")
	f.want(`^ADDED\s+third`)
	kubectl(t, "", "delete", "workload", "third", "-n", ns)
	f.want(`^DELETED\s+third`)

	one := follow(t, "get", "workload", "first", "-n", ns, "-w", "-o", "jsonpath={.status.phase}{'.\\n'}")
	one.want(`^\.$`)
	shared.world.report(ns, "first", "Running", "n2")
	one.want(`^Running\.$`)
}

func TestWorldWait(t *testing.T) {
	ns := project(t)
	kubectl(t, fmt.Sprintf(declaredWorkload, "late"), "apply", "-n", ns, "-f", "-")
	go func() {
		time.Sleep(500 * time.Millisecond)
		shared.world.report(ns, "late", "Running", "n1")
	}()
	kubectl(t, "", "wait", "-n", ns, "--for=jsonpath={.status.phase}=Running", "--timeout=20s", "workload/late")
	shared.world.report(ns, "short", "Running", "n1")
	eventually(t, func() string {
		_, errs, _ := kubectlWith(t, shared.kubeconfig, "", "get", "workload", "short", "-n", ns)
		return errs
	})
	go func() {
		time.Sleep(500 * time.Millisecond)
		shared.world.forget(ns, "short")
	}()
	kubectl(t, "", "wait", "-n", ns, "--for=delete", "--timeout=20s", "workload/short")
}

func TestWorldWrites(t *testing.T) {
	ns := project(t)
	shared.world.report(ns, "seen", "Running", "n7")
	eventually(t, func() string {
		_, errs, _ := kubectlWith(t, shared.kubeconfig, "", "get", "workload", "seen", "-n", ns)
		return errs
	})
	for _, args := range [][]string{
		{"delete", "workload", "seen"},
		{"label", "workload", "seen", "a=b"},
		{"patch", "workload", "seen", "--type=json", "-p", `[{"op":"add","path":"/spec/node","value":"n1"}]`},
	} {
		_, errs, err := kubectlWith(t, shared.kubeconfig, "", append(args, "-n", ns)...)
		want := `Error from server (MethodNotAllowed): workload "seen" is not declared, it was reported by node n7, so it cannot be changed here; stop the process on that node or run ` + "`moire detach --project " + ns + " seen`"
		if err == nil || !strings.Contains(errs, want) {
			t.Errorf("kubectl %v: %v\n%s\nwant: %s", args, err, errs, want)
		}
	}
	// To declare what was only reported is right.
	kubectl(t, fmt.Sprintf(declaredWorkload, "seen"), "apply", "--server-side", "-n", ns, "-f", "-")
	// What was read can be written back, though its version has a world side.
	read := kubectl(t, "", "get", "workload", "seen", "-n", ns, "-o", "json")
	kubectl(t, strings.Replace(read, `"account": "db"`, `"account": "web"`, 1), "replace", "-n", ns, "-f", "-")
	_, errs, err := kubectlWith(t, shared.kubeconfig, strings.Replace(read, `"account": "db"`, `"account": "old"`, 1), "replace", "-n", ns, "-f", "-")
	if err == nil || !strings.Contains(errs, "Conflict") {
		t.Errorf("a stale version must conflict: %v\n%s", err, errs)
	}
	// The world's status is no difference to what is declared.
	same := strings.Replace(fmt.Sprintf(declaredWorkload, "seen"), "account: db", "account: web", 1)
	if out, errs, err := kubectlWith(t, shared.kubeconfig, same, "diff", "--server-side", "--force-conflicts", "-n", ns, "-f", "-"); err != nil {
		t.Errorf("diff: %v\n%s%s", err, out, errs)
	}
	kubectl(t, "", "delete", "workload", "seen", "-n", ns)
	out := kubectl(t, "", "get", "workload", "seen", "-n", ns, "-o", "jsonpath={.status.phase} {.spec.account}")
	if out != "Running default" {
		t.Errorf("after its deletion the reported workload is %q", out)
	}
}
