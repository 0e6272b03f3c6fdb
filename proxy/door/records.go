package door

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"

	"moire.dev/moire/flow/record"
)

// Records is where the proxies of a node tell of requests, one JSON object a
// line: l7.Telemetry.Records is "unix:" and its path.
type Records struct {
	// Path of the socket; who listened there before is replaced.
	Path string
	// Take is given what came, oldest first; it is called by one at a time and may
	// keep none of the slice.
	Take func([]record.Record)
	Log  *slog.Logger // nil: slog.Default()
}

const (
	maxRecord     = 1 << 20
	recordsAtOnce = 256
)

// Run takes records until ctx ends.
func (r *Records) Run(ctx context.Context) error {
	log := r.Log
	if log == nil {
		log = slog.Default()
	}
	var taking sync.Mutex
	err := letIn(ctx, r.Path, log, func(ctx context.Context, c *net.UnixConn) {
		if err := r.read(c, &taking); err != nil && ctx.Err() == nil {
			log.Warn("records of a proxy cannot be read", "error", err)
		}
	})
	if err != nil {
		return fmt.Errorf("records of proxies at %s: %w", r.Path, err)
	}
	return nil
}

// read takes all that one proxy tells.
func (r *Records) read(c io.Reader, taking *sync.Mutex) error {
	lines := bufio.NewScanner(c)
	lines.Buffer(make([]byte, 0, 64<<10), maxRecord)
	more := false // the next line is here already
	lines.Split(func(data []byte, end bool) (int, []byte, error) {
		n, line, err := bufio.ScanLines(data, end)
		more = bytes.IndexByte(data[n:], '\n') >= 0
		return n, line, err
	})
	var batch []record.Record
	give := func() {
		if len(batch) > 0 {
			taking.Lock()
			r.Take(batch)
			taking.Unlock()
			batch = batch[:0]
		}
	}
	defer give()
	for lines.Scan() {
		if len(lines.Bytes()) > 0 {
			var one record.Record
			if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
				return err
			}
			batch = append(batch, one)
		}
		if len(batch) == recordsAtOnce || !more {
			give()
		}
	}
	return lines.Err()
}
