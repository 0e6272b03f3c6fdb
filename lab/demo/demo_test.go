package demo

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDemoAndDocs starts `moire demo` as a user would, runs every command that
// the tour, README and docs promise, ends it, and looks for what is left.
func TestDemoAndDocs(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("MOIRE_REQUIRE_ROOT") == "1" {
			t.Fatal("this test needs root")
		}
		t.Skip("the demo makes network namespaces and needs root")
	}
	bin := os.Getenv("MOIRE_BIN")
	if bin == "" {
		bin, _ = filepath.Abs("../../bin")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(filepath.Join(bin, "moire"), "demo", "down").CombinedOutput(); err != nil {
		t.Fatalf("demo down: %v\n%s", err, out)
	}
	before := traces(t)

	shown := runDemo(t, root, bin, func(shown string) {
		for _, c := range tourCommands() {
			command(t, root, "tour", c)
		}
		for _, doc := range docs(t, root) {
			for _, block := range blocks(t, doc, "sh run") {
				command(t, root, doc, block)
			}
		}
	})
	for _, want := range []string{
		`(?m)acme\n.*web.*10\.0\.0\.12.*ALLOWED.*db of acme.*\n.*web.*fd00:77::12.*ALLOWED.*db of acme.*\n.*batch.*10\.0\.0\.12.*DENIED.*\n.*batch.*fd00:77::12.*DENIED`,
		`(?m)globex\n.*web.*ALLOWED.*db of globex.*\n.*web.*ALLOWED.*db of globex.*\n.*batch.*ALLOWED.*db of globex.*\n.*batch.*ALLOWED.*db of globex`,
	} {
		if !regexp.MustCompile(want).MatchString(shown) {
			t.Errorf("the demo did not show %s\n%s", want, shown)
		}
	}
	if after := traces(t); after != before {
		t.Errorf("the demo left something behind\nbefore:\n%s\nafter:\n%s", before, after)
	}
}

// runDemo starts the demo, calls during when the tour is on the screen, ends
// it with Ctrl-C and returns what it showed.
func runDemo(t *testing.T, root, bin string, during func(string)) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "moire"), "demo")
	cmd.Dir = root
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var progress strings.Builder
	cmd.Stderr = &progress
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(2*time.Minute, func() { cmd.Process.Signal(syscall.SIGTERM) })
	defer limit.Stop()
	var shown strings.Builder
	r := bufio.NewReader(out)
	for !strings.Contains(shown.String(), "Ctrl-C") {
		line, err := r.ReadString('\n')
		shown.WriteString(line)
		if err != nil {
			cmd.Wait()
			t.Fatalf("the demo ended: %v\n%s\n%s", err, progress.String(), shown.String())
		}
	}
	limit.Reset(5 * time.Minute)
	during(shown.String())
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, r)
	if err := cmd.Wait(); err != nil {
		t.Errorf("the demo ended with %v\n%s", err, progress.String())
	}
	return shown.String()
}

// tourCommands are the indented lines of the tour.
func tourCommands() []string {
	var out []string
	for line := range strings.Lines(tour) {
		if c, ok := strings.CutPrefix(line, "  "); ok {
			out = append(out, strings.TrimSpace(c))
		}
	}
	return out
}

// command runs a block of shell. Commands that end with 1 because something
// was denied or differs did what they promise.
func command(t *testing.T, root, where, block string) {
	t.Helper()
	cmd := exec.Command("bash", "-c", "set -e; "+block)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	t.Logf("%s:\n%s\n%s", where, block, out)
	denied := strings.Contains(block, "label app=batch -- bin/moire demo fetch") && strings.Contains(string(out), "no answer from")
	if err != nil && !denied {
		t.Errorf("%s promises this, but it ended with %v:\n%s\n%s", where, err, block, out)
	}
	if err == nil && strings.Contains(block, "label app=batch -- bin/moire demo fetch") {
		t.Errorf("%s: a denied request was answered:\n%s", where, out)
	}
}

func docs(t *testing.T, root string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no docs: %v", err)
	}
	return append(files, filepath.Join(root, "README.md"))
}

// blocks returns the fenced blocks with the given info string.
func blocks(t *testing.T, file, info string) []string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile("(?s)```"+regexp.QuoteMeta(info)+"\n(.*?)```").FindAllStringSubmatch(string(b), -1) {
		out = append(out, m[1])
	}
	return out
}

// traces is everything that a demo could leave behind.
func traces(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("bash", "-c", `
ip -o link | awk '{print $2}' | grep moire-demo | sort
ip netns | grep moire-demo | sort
ls -d /run/moire /var/lib/moire /var/lib/moire/moire-demo 2>/dev/null
grep -E 'moire-demo|/run/moire/' /proc/self/mountinfo
pgrep -af 'moire-demo|moire demo serve' | grep -v pgrep | cut -d' ' -f2-
true`).CombinedOutput()
	if err != nil {
		t.Fatalf("look for traces: %v\n%s", err, out)
	}
	return string(out)
}
