package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"moire.dev/moire/identity"
	"moire.dev/moire/ipam"
	"moire.dev/moire/store"
)

// identityPrefix is where the files of the CA are in the rows. The API does not
// show rows; whoever reads etcd itself has the CA, so etcd is to be closed with
// client certificates.
const identityPrefix = "identity/"

// vaultTimeout bounds one access.
const vaultTimeout = 10 * time.Second

// vault keeps the CA of the nodes and the join tokens in the rows, where every
// process on the same database finds them.
type vault struct{ rows ipam.Rows }

// Place is where the file is, in words.
func (v vault) Place(name string) string { return "row " + identityPrefix + name }

// Read returns a file.
func (v vault) Read(name string) ([]byte, int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), vaultTimeout)
	defer cancel()
	b, revision, err := v.rows.Get(ctx, identityPrefix+name)
	if err != nil {
		return nil, 0, err
	}
	if revision == 0 {
		return nil, 0, fmt.Errorf("%s: %w", v.Place(name), fs.ErrNotExist)
	}
	return b, revision, nil
}

// List names files.
func (v vault) List(prefix string) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), vaultTimeout)
	defer cancel()
	rows, err := v.rows.List(ctx, identityPrefix+prefix)
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, len(rows))
	for key := range rows {
		out = append(out, strings.TrimPrefix(key, identityPrefix))
	}
	return out, nil
}

// Write replaces files.
func (v vault) Write(expect map[string]int64, files map[string][]byte) (bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), vaultTimeout)
	defer cancel()
	revisions, rows := map[string]int64{}, map[string][]byte{}
	for name, revision := range expect {
		revisions[identityPrefix+name] = revision
	}
	for name, b := range files {
		rows[identityPrefix+name] = b
	}
	return v.rows.Commit(ctx, revisions, rows)
}

// vault is where the CAs are: in the directory, or with an external etcd in the
// rows.
func (c Config) vault(rows ipam.Rows) identity.Vault {
	if len(c.EtcdServers) > 0 {
		return vault{rows}
	}
	return identity.Files(identityDir(c.Dir))
}

func (c Config) identityConfig(rows ipam.Rows) identity.Config {
	return identity.Config{Vault: c.vault(rows), SANs: c.names()}
}

// openCA opens the CA and makes one the first time. With an external etcd the
// first process brings the CA of its directory, if it has one.
func (c Config) openCA(rows ipam.Rows) (*identity.CA, error) {
	cfg := c.identityConfig(rows)
	if len(c.EtcdServers) > 0 {
		if err := identity.Move(identityDir(c.Dir), cfg.Vault); err != nil {
			return nil, fmt.Errorf("control: %w", err)
		}
	}
	ca, err := identity.OpenCA(cfg)
	if errors.Is(err, fs.ErrNotExist) {
		if ca, err = identity.NewCA(cfg); errors.Is(err, fs.ErrExist) {
			ca, err = identity.OpenCA(cfg) // another process was first
		}
	}
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	return ca, nil
}

// existingCA opens the CA of a control plane that ran before; done gives back
// what that took.
func (c Config) existingCA() (ca *identity.CA, done func(), err error) {
	c, err = c.withDefaults()
	if err != nil {
		return nil, nil, err
	}
	done = func() {}
	var rows *store.Rows
	place := c.Dir
	if len(c.EtcdServers) > 0 {
		place = fmt.Sprint("etcd at ", c.EtcdServers)
		rows, done, err = store.OpenRows(store.Config{Dir: c.Dir, EtcdServers: c.EtcdServers, EtcdCA: c.EtcdCA, EtcdCert: c.EtcdCert, EtcdKey: c.EtcdKey, Log: c.Log})
		if err != nil {
			return nil, nil, err
		}
	}
	ca, err = identity.OpenCA(c.identityConfig(rows))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("there is no control plane in %s; start moired once, or say where it is with --dir or --etcd-servers", place)
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return ca, done, nil
}
