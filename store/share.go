package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"time"
)

const (
	// keysRow holds what every API server on one database must have in common.
	// The API does not show rows; whoever reads etcd itself has everything.
	keysRow = "pki/keys"
	// shareTimeout bounds one try to reach the database.
	shareTimeout = 5 * time.Second
)

// sharedKeys are PEM files that all API servers on one database have.
type sharedKeys struct {
	CACert, CAKey, ServiceAccountKey []byte
}

// shareKeys makes the keys of this directory those of the database. Whoever
// starts first brings its own, which is how a directory that ran alone moves
// over; all others take them.
func (s *Store) shareKeys(ctx context.Context) error {
	for told := false; ; {
		try, cancel := context.WithTimeout(ctx, shareTimeout)
		err := s.shareOnce(try)
		cancel()
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if !told {
			s.log.Warn("etcd does not answer; waiting for it", "servers", s.cfg.EtcdServers, "error", err)
			told = true
		}
	}
}

func (s *Store) shareOnce(ctx context.Context) error {
	k := newKeyFiles(s.cfg.Dir)
	row, revision, err := s.rows.Get(ctx, keysRow)
	if err != nil {
		return err
	}
	if revision == 0 {
		own, err := k.read()
		if err != nil {
			return fmt.Errorf("store: keys in %s: %w", k.dir, err)
		}
		if row, err = json.Marshal(own); err != nil {
			return err
		}
		ok, err := s.rows.Commit(ctx, map[string]int64{keysRow: 0}, map[string][]byte{keysRow: row})
		if err != nil {
			return err
		}
		if !ok { // another process was first
			if row, _, err = s.rows.Get(ctx, keysRow); err != nil {
				return err
			}
		}
	}
	var keys sharedKeys
	if err := json.Unmarshal(row, &keys); err != nil || len(keys.CACert) == 0 || len(keys.CAKey) == 0 || len(keys.ServiceAccountKey) == 0 {
		return fmt.Errorf("store: the keys of the API in the database are damaged (row %s); remove the row, and one process will bring its own", keysRow)
	}
	return k.write(keys)
}

// read returns the keys of the directory, which are made if there are none.
func (k keyFiles) read() (out sharedKeys, err error) {
	if _, err := loadOrMakeCA(k); err != nil {
		return out, err
	}
	if _, err := loadOrMakeKey(k.serviceAccountKey); err != nil {
		return out, err
	}
	for path, into := range map[string]*[]byte{k.caCert: &out.CACert, k.caKey: &out.CAKey, k.serviceAccountKey: &out.ServiceAccountKey} {
		if *into, err = os.ReadFile(path); err != nil {
			return out, err
		}
	}
	return out, nil
}

// write puts the keys into the directory, if others are there.
func (k keyFiles) write(keys sharedKeys) error {
	for _, f := range []struct {
		path    string
		content []byte
		mode    os.FileMode
	}{{k.caKey, keys.CAKey, 0o600}, {k.caCert, keys.CACert, 0o644}, {k.serviceAccountKey, keys.ServiceAccountKey, 0o600}} {
		have, err := os.ReadFile(f.path)
		if err == nil && string(have) == string(f.content) {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := writeFile(f.path, f.content, f.mode); err != nil {
			return fmt.Errorf("store: %s: %w", f.path, err)
		}
	}
	return nil
}

// peerClient talks to the API servers of other processes.
func (k keyFiles) peerClient() (*http.Client, error) {
	ca, err := readCert(k.caCert)
	if err != nil {
		return nil, err
	}
	own, err := tls.LoadX509KeyPair(k.adminCert, k.adminKey)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{own}},
		TLSHandshakeTimeout: shareTimeout,
		ForceAttemptHTTP2:   true,
	}}, nil
}
