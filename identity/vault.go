package identity

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Vault keeps the few files of a CA, for one process or for several at the same
// time. Nobody but the control plane may read it.
type Vault interface {
	// Read returns a file and its revision, never 0; fs.ErrNotExist when there
	// is none.
	Read(name string) (content []byte, revision int64, err error)
	// List names the files that begin with prefix.
	List(prefix string) ([]string, error)
	// Write replaces the files if all that expect names have that revision (0:
	// must not exist); nil removes one. false: somebody else was first, and
	// nothing was written.
	Write(expect map[string]int64, files map[string][]byte) (ok bool, err error)
	// Place of a file, for messages.
	Place(name string) string
}

// Files is a Vault in a directory, for one machine.
func Files(dir string) Vault { return files{dir} }

// files is a Vault in a directory.
type files struct{ dir string }

// Place is the path of the file.
func (f files) Place(name string) string { return filepath.Join(f.dir, name) }

// Read reads the file; its revision is a hash of what is in it.
func (f files) Read(name string) ([]byte, int64, error) {
	b, err := readFile(f.Place(name))
	if err != nil {
		return nil, 0, err
	}
	sum := sha256.Sum256(b)
	return b, int64(binary.BigEndian.Uint64(sum[:8])>>1) | 1, nil
}

// List reads the directory.
func (f files) List(prefix string) ([]string, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Write replaces files under a lock, rootFile last: a directory without it
// counts as empty.
func (f files) Write(expect map[string]int64, content map[string][]byte) (bool, error) {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return false, fmt.Errorf("make the directory of the CA: %w", err)
	}
	unlock, err := lock(f.dir)
	if err != nil {
		return false, err
	}
	defer unlock()
	for name, want := range expect {
		_, have, err := f.Read(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		if have != want {
			return false, nil
		}
	}
	names := slices.Sorted(maps.Keys(content))
	if i := slices.Index(names, rootFile); i >= 0 {
		names = append(slices.Delete(names, i, i+1), rootFile)
	}
	for _, name := range names {
		if content[name] == nil {
			if err := f.remove(name); err != nil {
				return false, err
			}
			continue
		}
		mode := os.FileMode(0o600)
		if name == rootFile {
			mode = 0o644
		}
		if err := writeFile(f.Place(name), content[name], mode); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (f files) remove(name string) error {
	if err := os.Remove(f.Place(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(f.dir)
}

// Move copies the CAs of a directory into an empty Vault; nothing happens when
// the Vault has a CA, or the directory none. What is in the directory stays.
func Move(dir string, to Vault) error {
	if _, _, err := to.Read(rootFile); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	content := map[string][]byte{}
	domains, err := files{dir}.List(domainPrefix)
	if err != nil {
		return fmt.Errorf("move the CA of %s into the database: %w", dir, err)
	}
	for _, name := range append([]string{rootFile, rootKeyFile, issuingFile, tokenFile}, domains...) {
		b, _, err := files{dir}.Read(name)
		switch {
		case errors.Is(err, fs.ErrNotExist) && name == rootFile:
			return nil
		case errors.Is(err, fs.ErrNotExist):
			continue // the root key may be kept offline, and tokens need not be
		case err != nil:
			return fmt.Errorf("move the CA of %s into the database: %w", dir, err)
		}
		content[name] = b
	}
	if _, err := to.Write(map[string]int64{rootFile: 0}, content); err != nil {
		return fmt.Errorf("move the CA of %s into the database: %w", dir, err)
	}
	return nil // whoever was first, there is a CA now
}
