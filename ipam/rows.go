package ipam

import "context"

// Rows is a small table with transactions. Get and List see every Commit that
// returned before they were called.
type Rows interface {
	// Get returns the value of a key and its revision; revision 0 means that
	// there is no such key.
	Get(ctx context.Context, key string) (value []byte, revision int64, err error)
	// List returns all keys that begin with prefix.
	List(ctx context.Context, prefix string) (map[string][]byte, error)
	// Commit puts all values at once if every key in expect still has the
	// given revision (0: must not exist). A nil value deletes the key. It
	// returns false when somebody else was first; then nothing was changed.
	// After an error either nothing or everything was changed.
	Commit(ctx context.Context, expect map[string]int64, put map[string][]byte) (ok bool, err error)
}
