package node

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/wire"
)

// snapshotFile keeps the last good snapshot of a node, checksummed.
type snapshotFile struct{ path, node string }

func newSnapshotFile(dir, node string) snapshotFile {
	return snapshotFile{path: filepath.Join(dir, "snapshot"), node: node}
}

func (f snapshotFile) load() (*snapshot.Snapshot, error) {
	s, err := wire.ReadFile(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %w", f.path, err)
	case s.Node != f.node:
		return nil, fmt.Errorf("%s is of node %q, this is %q; give every node a --dir of its own", f.path, s.Node, f.node)
	}
	return s, nil
}

func (f snapshotFile) save(s *snapshot.Snapshot) error { return wire.WriteFile(f.path, s) }
