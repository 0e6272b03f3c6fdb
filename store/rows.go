package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// rowPrefix is where rows live in etcd, beside the API server's objects.
	rowPrefix = "/moire.dev/rows/"
	// rowPage is how many rows one read of a list fetches.
	rowPage = 1000
	// maxRowChanges is how many expectations or puts one Commit may have; etcd
	// allows 128 operations in a transaction.
	maxRowChanges = 128
	// rowTimeout bounds one call: a member of etcd that hangs must not hold up
	// who could ask another.
	rowTimeout = 10 * time.Second
)

// ErrClosed is returned by Rows once the store has stopped.
var ErrClosed = errors.New("store: the database is closed")

// Rows are small durable values beside the API objects: numbers that were
// given out, the last known world. A value that Commit put is on disk when
// Commit returns.
type Rows struct {
	opened chan struct{} // closed when client is set
	closed chan struct{}
	client *clientv3.Client
}

func newRows() *Rows {
	return &Rows{opened: make(chan struct{}), closed: make(chan struct{})}
}

func (r *Rows) open(db *database) error {
	c, err := db.client()
	if err != nil {
		return err
	}
	r.client = c
	close(r.opened)
	return nil
}

func (r *Rows) close() {
	close(r.closed)
	r.client.Close()
}

// OpenRows opens the rows of an external etcd without an API server, for tools
// beside one; done closes them.
func OpenRows(cfg Config) (rows *Rows, done func(), err error) {
	if len(cfg.EtcdServers) == 0 {
		return nil, nil, errors.New("store: the rows of an embedded etcd can only be read by who runs it")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	db, err := startDatabase(cfg, redirectLogs(cfg.Log))
	if err != nil {
		return nil, nil, err
	}
	rows = newRows()
	if err := rows.open(db); err != nil {
		return nil, nil, err
	}
	return rows, rows.close, nil
}

// kv waits for the database.
func (r *Rows) kv(ctx context.Context) (clientv3.KV, error) {
	select {
	case <-r.opened:
	case <-ctx.Done():
		return nil, fmt.Errorf("store: the database is not up yet: %w", ctx.Err())
	}
	select {
	case <-r.closed:
		return nil, ErrClosed
	default:
		return r.client, nil
	}
}

// Get returns the value and revision of key; revision 0 means that there is
// no such row.
func (r *Rows) Get(ctx context.Context, key string) (value []byte, revision int64, err error) {
	kv, err := r.kv(ctx)
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, rowTimeout)
	defer cancel()
	resp, err := kv.Get(ctx, rowPrefix+key)
	if err != nil {
		return nil, 0, fmt.Errorf("store: read row %s: %w", key, err)
	}
	if len(resp.Kvs) == 0 {
		return nil, 0, nil
	}
	return resp.Kvs[0].Value, resp.Kvs[0].ModRevision, nil
}

// List returns every row whose key starts with prefix, as of one moment.
func (r *Rows) List(ctx context.Context, prefix string) (map[string][]byte, error) {
	kv, err := r.kv(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, rowTimeout)
	defer cancel()
	rows := map[string][]byte{}
	from, end := rowPrefix+prefix, clientv3.GetPrefixRangeEnd(rowPrefix+prefix)
	var revision int64 // 0: newest; then that of the first page
	for {
		resp, err := kv.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(rowPage), clientv3.WithRev(revision))
		if err != nil {
			return nil, fmt.Errorf("store: list rows %s*: %w", prefix, err)
		}
		for _, e := range resp.Kvs {
			rows[strings.TrimPrefix(string(e.Key), rowPrefix)] = e.Value
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return rows, nil
		}
		from, revision = string(resp.Kvs[len(resp.Kvs)-1].Key)+"\x00", resp.Header.Revision
	}
}

// Commit changes rows all or nothing. expect says which revision each key must
// still have, 0 for absent; put holds the new values, nil to delete. It
// returns false, and changes nothing, if an expectation does not hold.
//
// After an error it is unknown whether the change was made: read again.
func (r *Rows) Commit(ctx context.Context, expect map[string]int64, put map[string][]byte) (ok bool, err error) {
	if len(expect) > maxRowChanges || len(put) > maxRowChanges {
		return false, fmt.Errorf("store: commit of %d expectations and %d rows; at most %d of each fit into one transaction", len(expect), len(put), maxRowChanges)
	}
	kv, err := r.kv(ctx)
	if err != nil {
		return false, err
	}
	var conditions []clientv3.Cmp
	for _, key := range slices.Sorted(maps.Keys(expect)) {
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(rowPrefix+key), "=", expect[key]))
	}
	var changes []clientv3.Op
	for _, key := range slices.Sorted(maps.Keys(put)) {
		if put[key] == nil {
			changes = append(changes, clientv3.OpDelete(rowPrefix+key))
		} else {
			changes = append(changes, clientv3.OpPut(rowPrefix+key, string(put[key])))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, rowTimeout)
	defer cancel()
	resp, err := kv.Txn(ctx).If(conditions...).Then(changes...).Commit()
	if err != nil {
		return false, fmt.Errorf("store: commit rows: %w", err)
	}
	return resp.Succeeded, nil
}
