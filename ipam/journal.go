package ipam

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"moire.dev/moire/snapshot"
)

// ErrDamaged: acknowledged entries of the journal cannot be read.
var ErrDamaged = errors.New("the address journal is damaged")

// maxLine bounds one entry in bytes.
const maxLine = 64 << 10

// entry is one line of the journal: what is so after the change. It is one of:
// a key with what it holds (Key set), a key that holds nothing any more (Key
// and Gone), a freed address (Free valid), or counters alone.
type entry struct {
	Key    *snapshot.AttachmentKey `json:"key,omitempty"`
	Gone   bool                    `json:"gone,omitempty"`
	VNI    snapshot.VNI            `json:"vni,omitempty"`
	Addrs  []netip.Addr            `json:"addrs,omitempty"`
	Static bool                    `json:"static,omitempty"`
	MAC    string                  `json:"mac,omitempty"`
	Free   netip.Addr              `json:"free,omitzero"`
	// Clock is the logical time of the change, MACs the number of MACs given
	// out until then.
	Clock uint64 `json:"clock,omitempty"`
	MACs  uint32 `json:"macs,omitempty"`
}

// file is what the journal needs of an os.File; tests make it fail.
type file interface {
	io.Writer
	Sync() error
	Truncate(size int64) error
	Close() error
}

// journal is an append-only file of checksummed lines:
//
//	<crc32c of the rest, 8 hex digits> <JSON of an entry>\n
//
// An append is complete only after fsync, and the next begins only then, so a
// crash can damage nothing but the end of the file.
type journal struct {
	path  string
	f     file
	size  int64
	lines int
	// broken is set when it is unknown what is on disk; only reopening tells.
	broken error
	open   func(path string) (file, error)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeLine(e entry) ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	if len(b) > maxLine-10 {
		return nil, fmt.Errorf("an entry of %d bytes is longer than the limit of %d", len(b), maxLine-10)
	}
	return fmt.Appendf(make([]byte, 0, len(b)+10), "%08x %s\n", crc32.Checksum(b, castagnoli), b), nil
}

func decodeLine(line []byte) (entry, bool) {
	var e entry
	sum, body, ok := bytes.Cut(line, []byte(" "))
	if !ok || len(sum) != 8 {
		return e, false
	}
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if err != nil || crc32.Checksum(body, castagnoli) != uint32(want) {
		return e, false
	}
	return e, json.Unmarshal(body, &e) == nil
}

// openJournal reads what is there, hands each entry to apply, and cuts off an
// append that a crash left incomplete. The result is ready for append.
func openJournal(path string, open func(string) (file, error), apply func(entry)) (*journal, error) {
	if err := os.Remove(path + ".new"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot remove %s.new, left by an interrupted compaction: %w", path, err)
	}
	j := &journal{path: path, open: open}
	var err error
	if j.size, j.lines, err = replay(path, apply); err != nil {
		return nil, err
	}
	if j.f, err = open(path); err != nil {
		return nil, fmt.Errorf("cannot open the address journal: %w", err)
	}
	if err := errors.Join(j.f.Truncate(j.size), j.f.Sync(), syncDir(path)); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot prepare the address journal %s: %w", path, err), j.f.Close())
	}
	return j, nil
}

// replay returns the length of the part that is whole. Bytes that are not are
// an append that nobody was told of, if nothing whole follows them.
func replay(path string, apply func(entry)) (size int64, lines int, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("cannot read the address journal: %w", err)
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, maxLine)
	bad := false
	for n := 1; ; n++ {
		line, err := r.ReadSlice('\n')
		if err != nil && err != io.EOF && !errors.Is(err, bufio.ErrBufferFull) {
			return 0, 0, fmt.Errorf("cannot read the address journal: %w", err)
		}
		e, ok := entry{}, false
		if err == nil {
			e, ok = decodeLine(line[:len(line)-1])
		}
		switch {
		case ok && bad:
			return 0, 0, fmt.Errorf("%w: %s cannot be read before line %d, so addresses might be given out twice; "+
				"restore the file, or detach all Workloads of this node and remove it", ErrDamaged, path, n)
		case ok:
			apply(e)
			size, lines = size+int64(len(line)), lines+1
		default:
			bad = true
		}
		if err == io.EOF {
			return size, lines, nil
		}
	}
}

// append makes e durable. After an error that leaves open what is on disk, the
// journal refuses everything until it is opened anew.
func (j *journal) append(e entry) error {
	if j.broken != nil {
		return fmt.Errorf("the address journal %s failed before and must be opened anew (restart the agent): %w", j.path, j.broken)
	}
	line, err := encodeLine(e)
	if err != nil {
		return err
	}
	if _, err := j.f.Write(line); err != nil {
		if undo := errors.Join(j.f.Truncate(j.size), j.f.Sync()); undo != nil {
			j.broken = errors.Join(err, undo)
		}
		return fmt.Errorf("cannot write to the address journal %s: %w", j.path, err)
	}
	if err := j.f.Sync(); err != nil {
		j.broken = err
		return fmt.Errorf("cannot write the address journal %s to disk: %w", j.path, err)
	}
	j.size += int64(len(line))
	j.lines++
	return nil
}

// replace writes all entries to a new file and puts it in the place of the old.
func (j *journal) replace(all []entry) error {
	next := j.path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := j.open(next)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	for _, e := range all {
		line, err := encodeLine(e)
		if err != nil {
			return errors.Join(err, f.Close())
		}
		b.Write(line)
	}
	if _, err := f.Write(b.Bytes()); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := os.Rename(next, j.path); err != nil {
		return errors.Join(err, f.Close())
	}
	// From here on the new file is the journal, whatever else fails.
	old := j.f
	j.f, j.size, j.lines = f, int64(b.Len()), len(all)
	if err := syncDir(j.path); err != nil {
		// After a power cut the old name could come back without what is
		// appended now.
		j.broken = err
		return err
	}
	return old.Close()
}

func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// openFile opens for appending.
func openFile(path string) (file, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}
