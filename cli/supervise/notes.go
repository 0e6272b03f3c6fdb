package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Note is one process that was started.
type Note struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
	// Started is its start time in clock ticks since boot, and Boot names the
	// boot: together with PID they name one process for ever.
	Started string `json:"started"`
	Boot    string `json:"boot"`
}

// Notes is the file that remembers processes. Safe for concurrent use.
type Notes struct {
	path string
	mu   sync.Mutex
	file noteFile
}

type noteFile struct {
	// About is what the one who writes wants to know later.
	About map[string]string `json:"about,omitempty"`
	Notes []Note            `json:"processes"`
}

// NewNotes starts an empty file at path, with what should be known later.
func NewNotes(path string, about map[string]string) (*Notes, error) {
	n := &Notes{path: path, file: noteFile{About: about}}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n, n.save()
}

// ReadNotes reads the file; there is nothing in it when it does not exist.
func ReadNotes(path string) (about map[string]string, notes []Note, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	var f noteFile
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return f.About, f.Notes, nil
}

// Add remembers a process in place of the last one of that name.
func (n *Notes) Add(name string, pid int) error {
	started, err := startTime(pid)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	note := Note{Name: name, PID: pid, Started: started, Boot: bootID()}
	for i := range n.file.Notes {
		if n.file.Notes[i].Name == name {
			n.file.Notes[i] = note
			return n.save()
		}
	}
	n.file.Notes = append(n.file.Notes, note)
	return n.save()
}

// Remove forgets all.
func (n *Notes) Remove() error { return os.Remove(n.path) }

func (n *Notes) save() error {
	text, err := json.MarshalIndent(n.file, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(n.path), 0o755); err != nil {
		return err
	}
	beside := n.path + ".new"
	if err := os.WriteFile(beside, append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(beside, n.path)
}

// Alive says whether exactly this process still runs.
func (n Note) Alive() bool {
	if n.PID <= 1 || n.Boot != bootID() {
		return false
	}
	started, err := startTime(n.PID)
	return err == nil && started == n.Started
}

// End asks the process to end, waits, and kills it when the grace is over.
func (n Note) End(ctx context.Context, grace time.Duration) error {
	if !n.Alive() {
		return nil
	}
	// The handle keeps naming this process also when its number is reused.
	p, err := os.FindProcess(n.PID)
	if err != nil {
		return err
	}
	defer p.Release()
	if !n.Alive() {
		return nil
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return ended(n.Name, err)
	}
	for deadline := time.Now().Add(grace); n.Alive(); {
		if time.Now().After(deadline) {
			if err := p.Kill(); err != nil {
				return ended(n.Name, err)
			}
			deadline = time.Now().Add(grace)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func ended(name string, err error) error {
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return fmt.Errorf("end %s: %w", name, err)
}

// startTime is field 22 of /proc/<pid>/stat; a zombie counts as gone.
func startTime(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The name, in parentheses, may hold anything.
	_, rest, found := cutLast(string(text), ") ")
	fields := strings.Fields(rest)
	if !found || len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat cannot be read", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return "", fs.ErrNotExist
	}
	return fields[19], nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
