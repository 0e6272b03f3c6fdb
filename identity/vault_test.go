package identity

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// memory is a Vault that several processes could share.
type memory struct {
	mu    sync.Mutex
	files map[string][]byte
	marks map[string]int64
	last  int64
}

func newMemory() *memory { return &memory{files: map[string][]byte{}, marks: map[string]int64{}} }

func (m *memory) Place(name string) string { return "memory " + name }

func (m *memory) Read(name string) ([]byte, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.marks[name] == 0 {
		return nil, 0, fs.ErrNotExist
	}
	return m.files[name], m.marks[name], nil
}

func (m *memory) List(prefix string) (out []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.files {
		if strings.HasPrefix(name, prefix) {
			out = append(out, name)
		}
	}
	return out, nil
}

func (m *memory) Write(expect map[string]int64, files map[string][]byte) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, want := range expect {
		if m.marks[name] != want {
			return false, nil
		}
	}
	m.last++
	for name, b := range files {
		if b == nil {
			delete(m.files, name)
			delete(m.marks, name)
			continue
		}
		m.files[name], m.marks[name] = b, m.last
	}
	return true, nil
}

// TestOneCA: of many processes that start at one moment, one makes the CA and
// all have it; a token that is good once is used once.
func TestOneCA(t *testing.T) {
	for name, cfg := range map[string]Config{"directory": {Dir: filepath.Join(t.TempDir(), "ca")}, "vault": {Vault: newMemory()}} {
		t.Run(name, func(t *testing.T) {
			const processes = 8
			var made atomic.Int32
			cas := make([]*CA, processes)
			var wg sync.WaitGroup
			for i := range processes {
				wg.Go(func() {
					ca, err := NewCA(cfg)
					switch {
					case err == nil:
						made.Add(1)
					case errors.Is(err, fs.ErrExist):
						ca, err = OpenCA(cfg)
					}
					if err != nil {
						t.Error(err)
					}
					cas[i] = ca
				})
			}
			wg.Wait()
			if t.Failed() || made.Load() != 1 {
				t.Fatalf("%d processes made a CA", made.Load())
			}
			token := mustToken(t, cas[0], TokenSpec{Once: true})
			var used atomic.Int32
			for _, ca := range cas {
				if ca.CAHash() != cas[0].CAHash() {
					t.Error("two CAs")
				}
				wg.Go(func() {
					if ca.CheckToken(token) == nil {
						used.Add(1)
					}
				})
			}
			wg.Wait()
			if used.Load() != 1 {
				t.Errorf("used %d times", used.Load())
			}
			leaf, _ := sign(t, cas[1], "n1")
			if node, err := cas[2].NodeOf(leaf); err != nil || node != "n1" {
				t.Errorf("got %q, %v", node, err)
			}
		})
	}
}

// TestMove: what a directory holds is taken over once, and never over a CA
// that is there.
func TestMove(t *testing.T) {
	dir := t.TempDir()
	old := newCA(t, Config{Dir: dir})
	token := mustToken(t, old, TokenSpec{})
	if err := os.Remove(filepath.Join(dir, rootKeyFile)); err != nil { // kept offline
		t.Fatal(err)
	}
	v := newMemory()
	if err := Move(t.TempDir(), v); err != nil || len(v.files) != 0 {
		t.Fatalf("%v, %d files", err, len(v.files))
	}
	for range 2 {
		if err := Move(dir, v); err != nil {
			t.Fatal(err)
		}
	}
	ca, err := OpenCA(Config{Vault: v})
	if err != nil || ca.CAHash() != old.CAHash() || ca.CheckToken(token) != nil {
		t.Fatalf("got %v", err)
	}
	before := maps.Clone(v.marks)
	other := t.TempDir()
	newCA(t, Config{Dir: other})
	if err := Move(other, v); err != nil || !maps.Equal(before, v.marks) {
		t.Errorf("a CA was replaced: %v", err)
	}
}
