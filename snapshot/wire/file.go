package wire

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"
	"moire.dev/moire/snapshot"
)

// A file is: magic, then text node, text version, then rows, then one zero
// byte, then the SHA-256 of all before it. Texts and rows are a varint length
// and that many bytes; no row is empty.
const fileMagic = "moire snapshot 1\n"

// ErrCorrupt is what ReadFile fails with when the file is there, but is not
// whole and unchanged.
var ErrCorrupt = errors.New("the snapshot file is damaged; it is of no use and may be removed")

// WriteFile puts the snapshot into a file that only the owner may read,
// durably and as a whole: a crash at any moment leaves the old file or the new
// one.
func WriteFile(path string, s *snapshot.Snapshot) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()           // the first error is the one that counts
			_ = os.Remove(f.Name()) // so is it here
			err = fmt.Errorf("write snapshot: %w", err)
		}
	}()
	if err := Write(f, s); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// Write writes the file form. Equal snapshots give equal bytes.
func Write(w io.Writer, s *snapshot.Snapshot) error {
	if n := count(s); n > MaxRows {
		return fmt.Errorf("%d rows, more than %d", n, MaxRows)
	}
	out := fileWriter{w: bufio.NewWriterSize(w, 64<<10), sum: sha256.New()}
	out.write([]byte(fileMagic))
	out.part([]byte(s.Node))
	out.part([]byte(s.Version()))
	var buf []byte
	for r, err := range rows(s, false) {
		if err != nil {
			return err
		}
		if buf, err = (proto.MarshalOptions{Deterministic: true}).MarshalAppend(buf[:0], r); err != nil {
			return err
		}
		if len(buf) > MaxRow {
			return fmt.Errorf("a %s row has %d bytes, more than %d", kind(r), len(buf), MaxRow)
		}
		out.part(buf)
	}
	out.part(nil)
	sum := out.sum.Sum(nil)
	out.write(sum)
	if out.size > MaxDelta {
		return fmt.Errorf("%d bytes, more than %d", out.size, MaxDelta)
	}
	if out.err != nil {
		return out.err
	}
	return out.w.Flush()
}

type fileWriter struct {
	w    *bufio.Writer
	sum  hash.Hash
	size int
	err  error
}

func (f *fileWriter) write(b []byte) {
	f.size += len(b)
	f.sum.Write(b) // never fails
	if f.err == nil {
		_, f.err = f.w.Write(b)
	}
}

func (f *fileWriter) part(b []byte) {
	f.write(binary.AppendUvarint(nil, uint64(len(b))))
	f.write(b)
}

// ReadFile reads what WriteFile wrote. A file that is not there gives
// fs.ErrNotExist, one that is not whole and unchanged ErrCorrupt; it is never
// read in part.
func ReadFile(path string) (*snapshot.Snapshot, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	defer f.Close()
	i, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	if !i.Mode().IsRegular() || i.Size() > MaxDelta {
		return nil, fmt.Errorf("read snapshot %s: not a file of at most %d bytes: %w", path, MaxDelta, ErrCorrupt)
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxDelta+1))
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	s, err := Read(b)
	if err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w: %w", path, err, ErrCorrupt)
	}
	return s, nil
}

// Read decodes the file form: checksum first, then every row as if it came
// over the wire, then the version of it all.
func Read(b []byte) (*snapshot.Snapshot, error) {
	n := len(b) - sha256.Size
	if n < len(fileMagic) || !bytes.HasPrefix(b, []byte(fileMagic)) {
		return nil, errors.New("it does not begin as a snapshot file")
	}
	if sum := sha256.Sum256(b[:n]); !bytes.Equal(sum[:], b[n:]) {
		return nil, errors.New("its checksum does not match")
	}
	rest := b[len(fileMagic):n]
	node, rest, err := part(rest)
	if err != nil {
		return nil, err
	}
	version, rest, err := part(rest)
	if err != nil {
		return nil, err
	}
	c := check{row: "snapshot"}
	s := &snapshot.Snapshot{Node: c.text("node", string(node), MaxNode)}
	for i := 0; c.err == nil; i++ {
		var row []byte
		if row, rest, err = part(rest); err != nil {
			return nil, err
		}
		if len(row) == 0 {
			break
		}
		var m Row
		if i >= MaxRows {
			return nil, fmt.Errorf("more than %d rows", MaxRows)
		}
		if err := proto.Unmarshal(row, &m); err != nil {
			return nil, fmt.Errorf("row %d cannot be decoded: %w", i, err)
		}
		c.row = fmt.Sprintf("row %d", i)
		addRow(s, &c, &m, false)
	}
	switch {
	case c.err != nil:
		return nil, c.err
	case len(rest) > 0:
		return nil, fmt.Errorf("%d bytes after the last row", len(rest))
	case s.Version() != snapshot.Version(version):
		return nil, fmt.Errorf("its content is version %s, not %q as it says", s.Version(), version)
	}
	return s, nil
}

func part(b []byte) (this, rest []byte, err error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) || n > MaxRow {
		return nil, nil, errors.New("it is cut short")
	}
	return b[size : size+int(n)], b[size+int(n):], nil
}
