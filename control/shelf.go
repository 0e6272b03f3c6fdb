package control

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/wire"
)

// worldPrefix is where the rows of the world are: one per node.
const worldPrefix = "world/"

// maxWorldRow bounds a row in bytes; etcd takes 1.5 MB in one request.
const maxWorldRow = 1 << 20

// savedWorld is the row of one node.
type savedWorld struct {
	// Owner is the process that the node was connected to.
	Owner string `json:"owner"`
	// Term counts the connections of the node.
	Term      uint64           `json:"term,omitempty"`
	Connected bool             `json:"connected"`
	Fresh     bool             `json:"fresh,omitempty"`
	Seen      time.Time        `json:"seen"`
	Acked     snapshot.Version `json:"acked,omitempty"`
	Applied   snapshot.Version `json:"applied,omitempty"`
	Error     string           `json:"error,omitempty"`
	Lost      uint64           `json:"lost,omitempty"`
	// Report is a wire.Report, deflated; empty: none yet.
	Report []byte `json:"report,omitempty"`
}

func encodeWorld(n nodeWorld) ([]byte, error) {
	s := savedWorld{Owner: n.owner, Term: n.term, Connected: n.here, Fresh: n.fresh, Seen: n.seen.UTC(),
		Acked: n.acked, Applied: n.applied, Error: n.err, Lost: n.lost}
	if n.report != nil {
		plain, err := proto.MarshalOptions{Deterministic: true}.Marshal(wire.FromReport(n.report))
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		z, err := flate.NewWriter(&b, flate.BestSpeed)
		if err != nil {
			return nil, err
		}
		if _, err := z.Write(plain); err != nil {
			return nil, err
		}
		if err := z.Close(); err != nil {
			return nil, err
		}
		s.Report = b.Bytes()
	}
	row, err := json.Marshal(s)
	if err == nil && len(row) > maxWorldRow {
		err = fmt.Errorf("the row has %d bytes, more than %d", len(row), maxWorldRow)
	}
	return row, err
}

// decodeWorld reads a row. self is this process: what it said itself was said
// in a former life, so the node is not connected until it comes again.
func decodeWorld(node, self string, row []byte) (nodeWorld, error) {
	var s savedWorld
	if err := json.Unmarshal(row, &s); err != nil {
		return nodeWorld{}, err
	}
	n := nodeWorld{owner: s.Owner, term: s.Term, away: s.Connected && s.Owner != self, fresh: s.Fresh && s.Owner != self,
		seen: s.Seen, acked: s.Acked, applied: s.Applied, err: s.Error, lost: s.Lost}
	if len(s.Report) == 0 {
		return n, nil
	}
	limited := &io.LimitedReader{R: flate.NewReader(bytes.NewReader(s.Report)), N: wire.MaxMessage + 1}
	plain, err := io.ReadAll(limited)
	if err != nil {
		return nodeWorld{}, err
	}
	if limited.N <= 0 {
		return nodeWorld{}, errors.New("the report is longer than any that a node may send")
	}
	var w wire.Report
	if err := proto.Unmarshal(plain, &w); err != nil {
		return nodeWorld{}, err
	}
	r, err := wire.ToReport(node, &w)
	if err != nil {
		return nodeWorld{}, err
	}
	n.report = &r
	return n, nil
}

// savedConnected reports whether the row says that the node was connected.
func savedConnected(row []byte) bool {
	var s savedWorld
	return json.Unmarshal(row, &s) == nil && s.Connected
}
