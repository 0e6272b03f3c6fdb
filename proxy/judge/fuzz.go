package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// What of a found corpus is kept: few inputs, small ones and larger ones.
const (
	mostSeeds = 8
	longest   = 4 << 10
)

// fuzzed runs every native fuzz target under root for span, one after the
// other, and keeps what widened its coverage under testdata/fuzz, as Go does with
// what failed. It runs in the folder of the module.
func fuzzed(ctx context.Context, root string, span time.Duration) (verdict, error) {
	v := verdict{judge: "fuzz"}
	targets, err := fuzzTargets(ctx, root)
	if err != nil {
		return v, err
	}
	for _, t := range targets {
		fmt.Fprintf(os.Stderr, "fuzz %s %s for %s ...\n", t.pack, t.name, span)
		bounded, cancel := context.WithTimeout(ctx, span+5*time.Minute)
		cmd := exec.CommandContext(bounded, "go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", span.String(), t.pack)
		out, err := cmd.CombinedOutput()
		cancel()
		if ctx.Err() != nil {
			return v, ctx.Err()
		}
		wrong := ""
		if err != nil {
			wrong = err.Error() + "\n" + string(out[max(0, len(out)-1500):])
		}
		v.say(strings.TrimPrefix(t.pack, "moire.dev/moire/")+" "+t.name, wrong)
		kept, err := t.keep(ctx)
		if err != nil {
			return v, err
		}
		v.notes = append(v.notes, fmt.Sprintf("%s %s: %s; %d inputs kept", t.pack, t.name, executions(out), kept))
	}
	return v, nil
}

type fuzzTarget struct{ pack, dir, name string }

// fuzzTargets lists them by asking each package's test binary.
func fuzzTargets(ctx context.Context, root string) ([]fuzzTarget, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.ImportPath}} {{.Dir}}", root).Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w", root, err)
	}
	var all []fuzzTarget
	for line := range strings.Lines(string(out)) {
		pack, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				return nil, err
			}
			for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
				if rest, ok := strings.CutPrefix(s.Text(), "func Fuzz"); ok {
					name, _, _ := strings.Cut(rest, "(")
					all = append(all, fuzzTarget{pack, dir, "Fuzz" + name})
				}
			}
		}
	}
	return all, nil
}

// keep copies inputs that the fuzzer's cache holds and testdata does not, of all
// sizes up to longest, until testdata has mostSeeds.
func (t fuzzTarget) keep(ctx context.Context) (int, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOCACHE").Output()
	if err != nil {
		return 0, err
	}
	from := filepath.Join(strings.TrimSpace(string(out)), "fuzz", t.pack, t.name)
	to := filepath.Join(t.dir, "testdata", "fuzz", t.name)
	found, err := bySize(from)
	if err != nil {
		return 0, err
	}
	kept, err := bySize(to)
	if err != nil {
		return 0, err
	}
	found = slices.DeleteFunc(found, func(f sized) bool {
		return f.size > longest || slices.ContainsFunc(kept, func(k sized) bool { return k.name == f.name })
	})
	n, more := len(kept), min(mostSeeds-len(kept), len(found))
	for i := range max(more, 0) {
		name := found[i*len(found)/more].name
		b, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return n, err
		}
		if err := os.MkdirAll(to, 0o755); err != nil {
			return n, err
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o644); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

type sized struct {
	name string
	size int64
}

// bySize lists the files of a folder, the smallest first; none if it is not there.
func bySize(dir string) ([]sized, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if os.IsNotExist(err) {
			return nil, nil
		}
		return nil, err
	}
	var all []sized
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		if info.Mode()&fs.ModeType == 0 {
			all = append(all, sized{e.Name(), info.Size()})
		}
	}
	slices.SortFunc(all, func(a, b sized) int {
		if a.size != b.size {
			return int(a.size - b.size)
		}
		return strings.Compare(a.name, b.name)
	})
	return all, nil
}

// executions is what the fuzzer last said of itself.
func executions(out []byte) string {
	last := ""
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "execs:") {
			last = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "fuzz: "))
		}
	}
	if last == "" {
		return "no execution"
	}
	return last
}
