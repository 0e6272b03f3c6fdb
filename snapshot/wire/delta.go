package wire

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"moire.dev/moire/snapshot"
)

// FromDelta hands the delta to send in messages of about ChunkBytes; the last
// one has more unset. It fails when a row is larger than MaxRow or under a
// wrong key, and with whatever send fails with.
func FromDelta(d *snapshot.Delta, send func(*Delta) error) error {
	if n := count(&d.Put) + count(&d.Delete); n > MaxRows {
		return fmt.Errorf("%d rows, more than %d", n, MaxRows)
	}
	c := chunker{send: send, version: string(d.Version), next: &Delta{Version: string(d.Version), Reset_: d.Reset, Changed: d.Changed}}
	if !d.Reset {
		for r, err := range rows(&d.Delete, true) {
			if err := c.add(r, true, err); err != nil {
				return err
			}
		}
	}
	for r, err := range rows(&d.Put, false) {
		if err := c.add(r, false, err); err != nil {
			return err
		}
	}
	return send(c.next)
}

// chunker gathers rows until a message is full.
type chunker struct {
	send    func(*Delta) error
	version string
	next    *Delta
	size    int
}

func (c *chunker) add(r *Row, del bool, err error) error {
	if err != nil {
		return err
	}
	size := proto.Size(r)
	if size > MaxRow {
		return fmt.Errorf("a %s row has %d bytes, more than %d", kind(r), size, MaxRow)
	}
	size = protowire.SizeBytes(size) + 1 // length and tag
	if c.size > 0 && c.size+size > ChunkBytes {
		c.next.More = true
		if err := c.send(c.next); err != nil {
			return err
		}
		c.next, c.size = &Delta{Version: c.version, Reset_: c.next.Reset_, Changed: c.next.Changed}, 0
	}
	c.size += size
	if del {
		c.next.Delete = append(c.next.Delete, r)
	} else {
		c.next.Put = append(c.next.Put, r)
	}
	return nil
}

func kind(r *Row) string {
	return string(r.ProtoReflect().WhichOneof(r.ProtoReflect().Descriptor().Oneofs().Get(0)).Name())
}

// Joiner puts the messages of a Delta together again. Messages of another
// Delta before the first is whole mean that the sender gave the first up.
type Joiner struct {
	node  string
	delta *snapshot.Delta
	err   error // what was wrong; the rest of the Delta is passed over
	rows  int
	bytes int
}

// NewJoiner is for the deltas of one node.
func NewJoiner(node string) *Joiner { return &Joiner{node: node} }

// Add takes the next message. With the last one of a Delta it returns the
// whole Delta or what is wrong with it, before that nothing.
func (j *Joiner) Add(m *Delta) (*snapshot.Delta, error) {
	version := snapshot.Version(m.GetVersion())
	if j.delta == nil || j.delta.Version != version || j.delta.Reset != m.GetReset_() {
		*j = Joiner{node: j.node, delta: &snapshot.Delta{
			Version: version, Reset: m.GetReset_(), Changed: m.GetChanged(),
			Put: snapshot.Snapshot{Node: j.node}, Delete: snapshot.Snapshot{Node: j.node},
		}}
	}
	if j.err == nil {
		if err := j.add(m); err != nil {
			j.err = fmt.Errorf("delta %.64q: %w", version, err)
			// What was gathered is of no use, and may be large.
			j.delta.Put, j.delta.Delete = snapshot.Snapshot{}, snapshot.Snapshot{}
		}
	}
	if m.GetMore() {
		return nil, nil
	}
	d, err := j.delta, j.err
	*j = Joiner{node: j.node}
	if err != nil {
		return nil, err
	}
	if err := overlap(&d.Put, &d.Delete); err != nil {
		return nil, fmt.Errorf("delta %s: %w", version, err)
	}
	return d, nil
}

func (j *Joiner) add(m *Delta) error {
	c := check{row: "message"}
	if c.text("version", m.GetVersion(), MaxVersion) == "" {
		c.failf("version", "empty")
		return c.err
	}
	if m.GetReset_() && len(m.GetDelete()) > 0 {
		return errors.New("a reset that deletes rows")
	}
	j.rows += len(m.GetPut()) + len(m.GetDelete())
	j.bytes += proto.Size(m)
	if j.rows > MaxRows || j.bytes > MaxDelta {
		return fmt.Errorf("more than %d rows or %d bytes", MaxRows, MaxDelta)
	}
	if err := addRows(&j.delta.Delete, "delete row", m.GetDelete(), true); err != nil {
		return err
	}
	return addRows(&j.delta.Put, "put row", m.GetPut(), false)
}
