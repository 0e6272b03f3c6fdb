package control

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"moire.dev/moire/identity"
)

const (
	joinFile = "join.json"
	// localNote, and the name of the process, mark the token of join.json.
	localNote = "join.json, for the node on this machine: "
	// localLife is how long it is good; it is replaced at half of that.
	localLife = 24 * time.Hour
)

// joining is join.json: all that a node on this machine needs to join.
type joining struct {
	Servers []string `json:"servers"`
	Token   string   `json:"token"`
	CAHash  string   `json:"caHash"`
}

// writeJoin makes a new local token, writes join.json, and ends older ones.
func writeJoin(ca *identity.CA, runDir, self string, servers []string) error {
	note := localNote + self
	old, err := ca.Tokens()
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	token, err := ca.NewToken(identity.TokenSpec{Life: localLife, Note: note})
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	b, err := json.MarshalIndent(joining{Servers: servers, Token: token, CAHash: ca.CAHash()}, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(runDir, joinFile), append(b, '\n')); err != nil {
		return fmt.Errorf("control: write %s: %w", joinFile, err)
	}
	for _, t := range old {
		if t.Note == note {
			// It may have ended by itself meanwhile.
			_ = ca.RevokeToken(t.ID)
		}
	}
	return nil
}

// keepJoin renews join.json until ctx ends.
func keepJoin(ctx context.Context, write func() error) error {
	for sleep(ctx, localLife/2) {
		if err := write(); err != nil {
			return err
		}
	}
	return nil
}

// writeFile replaces a file as a whole, mode 0600.
func writeFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// instance returns the name of this process, which is the same after a
// restart because it belongs to the directory.
func instance(dir string) (string, error) {
	path := filepath.Join(dir, "instance")
	b, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(b))) > 0 {
		return strings.TrimSpace(string(b)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("control: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "moired"
	}
	raw := make([]byte, 5)
	rand.Read(raw) // never fails
	name := strings.ToLower(host) + "-" + hex.EncodeToString(raw)
	if err := writeFile(path, []byte(name+"\n")); err != nil {
		return "", fmt.Errorf("control: %w", err)
	}
	return name, nil
}
