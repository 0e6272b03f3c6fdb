package node

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"moire.dev/moire/snapshot"
)

// disk is what the agent remembers of its attachments: one file each, so that
// a change costs the same however many there are. A file is JSON, then a line
// with its SHA-256.
type disk struct{ dir string }

// openDisk makes the directory.
func openDisk(dir string) (*disk, error) {
	d := &disk{dir: filepath.Join(dir, "attachments")}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory for attachments: %w", err)
	}
	return d, nil
}

// path of an attachment: no part of a key has an underscore, and only a Network
// of another project has a slash.
func (d *disk) path(k snapshot.AttachmentKey) string {
	return filepath.Join(d.dir, k.Project+"_"+k.Workload+"_"+strings.ReplaceAll(k.Network, "/", "__"))
}

// save is durable when it returns.
func (d *disk) save(a *attachment) error {
	body, err := json.Marshal(a)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	return writeDurable(d.path(a.Key), []byte(string(body)+"\n"+hex.EncodeToString(sum[:])+"\n"))
}

// remove is durable when it returns. What is gone already is no error.
func (d *disk) remove(k snapshot.AttachmentKey) error {
	if err := os.Remove(d.path(k)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(d.dir)
}

// load reads every attachment. A damaged file is set aside and reported: what
// it was stays closed.
func (d *disk) load() (all []*attachment, damaged error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(d.dir, e.Name())
		switch {
		case strings.HasSuffix(e.Name(), ".damaged"):
			continue
		case strings.HasSuffix(e.Name(), ".new"):
			os.Remove(path) // a write that a crash cut short
			continue
		}
		a, err := readAttachment(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s is set aside as .damaged: %w", path, err), os.Rename(path, path+".damaged"))
			continue
		}
		all = append(all, a)
	}
	return all, errors.Join(errs...)
}

func readAttachment(path string) (*attachment, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	body, rest, _ := bytes.Cut(b, []byte("\n"))
	sum := sha256.Sum256(body)
	if string(bytes.TrimSpace(rest)) != hex.EncodeToString(sum[:]) {
		return nil, errors.New("the checksum is wrong")
	}
	a := &attachment{}
	if err := json.Unmarshal(body, a); err != nil {
		return nil, err
	}
	if a.Key.Project == "" || a.Key.Workload == "" || a.Key.Network == "" || a.Host == "" {
		return nil, errors.New("it names no attachment")
	}
	return a, nil
}

// writeDurable replaces the file at once: after a crash it is the old one or
// the new one.
func writeDurable(path string, b []byte) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
