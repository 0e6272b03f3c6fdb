package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Binary looks for one of our programs: beside this executable, then in PATH.
func Binary(name string) (path string, err error) {
	self, err := os.Executable()
	if err == nil {
		if real, err := filepath.EvalSymlinks(self); err == nil {
			self = real
		}
		path = filepath.Join(filepath.Dir(self), name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	if path, err = exec.LookPath(name); err == nil {
		return filepath.Abs(path)
	}
	return "", fmt.Errorf("%s is neither beside moire nor in PATH", name)
}

// Binaries looks for the programs that belong to moire.
func Binaries() []Result {
	var results []Result
	for _, name := range []string{"moired", "moire-node"} {
		path, err := Binary(name)
		if err != nil {
			results = append(results, fail("binary-"+name, "put it beside moire, or build it with `make build`", "%v", err))
			continue
		}
		results = append(results, ok("binary-"+name, "%s", path))
	}
	return results
}

// Kernel asks moire-node which features of the kernel it finds.
func Kernel(ctx context.Context) []Result {
	const id = "kernel"
	path, err := Binary("moire-node")
	if err != nil {
		return []Result{fail(id, "put moire-node beside moire", "the kernel's features are not known: %v", err)}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var errs strings.Builder
	cmd := exec.CommandContext(ctx, path, "check", "-o", "json")
	cmd.Stderr = &errs
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	results, parseErr := ReadKernel(out)
	var exit *exec.ExitError
	switch {
	case parseErr == nil:
		return results
	case err != nil && !errors.As(err, &exit):
		return []Result{fail(id, "run it by hand: "+path+" check", "moire-node check: %v", err)}
	case ctx.Err() != nil:
		return []Result{fail(id, "run it by hand: "+path+" check", "moire-node check did not end within 30 s")}
	}
	return []Result{fail(id, "run it by hand: "+path+" check", "moire-node check: %s", lastLine(errs.String(), parseErr))}
}

func lastLine(text string, otherwise error) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return last
	}
	return otherwise.Error()
}

var notWord = regexp.MustCompile(`[^a-z0-9]+`)

// ReadKernel reads what `moire-node check -o json` prints: a list of name, ok,
// why and fix.
func ReadKernel(out []byte) ([]Result, error) {
	var list []struct {
		Name string `json:"name"`
		OK   bool   `json:"ok"`
		Why  string `json:"why"`
		Fix  string `json:"fix"`
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("its answer cannot be read: %w", err)
	}
	if len(list) == 0 {
		return nil, errors.New("its answer is empty")
	}
	var results []Result
	for _, l := range list {
		r := Result{ID: "kernel-" + strings.Trim(notWord.ReplaceAllString(strings.ToLower(l.Name), "-"), "-"), State: OK, Cause: l.Name}
		if l.Why != "" {
			r.Cause = l.Why
		}
		if !l.OK {
			r.State, r.Fix = Failed, l.Fix
		}
		results = append(results, r)
	}
	return results, nil
}
