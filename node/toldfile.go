package node

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"moire.dev/moire/snapshot"
)

// toldFile remembers, across a restart of the agent, what Workloads were told,
// so that their sessions go on: one line for each address, a later one counts.
// It is in the run directory: sessions do not outlive the machine either. What
// is lost is asked again.
type toldFile struct {
	path  string
	lines int
	log   *os.File // nil: not opened yet, or not to be had
}

// kept is one line.
type kept struct {
	asker
	told
	until time.Time
}

type keptLine struct {
	VNI      snapshot.VNI `json:"vni"`
	Project  string       `json:"project"`
	Workload string       `json:"workload"`
	Name     string       `json:"name"`
	Address  netip.Addr   `json:"address"`
	Until    time.Time    `json:"until"`
}

// manyLines: the file is written anew when it has many more than it needs.
const manyLines = 4096

func (f *toldFile) load(log *slog.Logger) []kept {
	b, err := os.ReadFile(f.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("what Workloads were told by name is lost; they have to ask again", "error", err)
	}
	var out []kept
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); f.lines++ {
		var l keptLine
		if json.Unmarshal(s.Bytes(), &l) != nil || !l.Address.IsValid() {
			continue // cut off by a kill
		}
		out = append(out, kept{asker{l.VNI, l.Project, l.Workload}, told{l.Name, l.Address}, l.Until})
	}
	return out
}

// add appends; now and then it writes all anew.
func (f *toldFile) add(log *slog.Logger, more []kept, all func() []kept) {
	if err := f.tryAdd(more, all); err != nil {
		log.Warn("cannot remember what Workloads are told by name; after a restart of the agent they have to ask again", "error", err)
	}
}

func (f *toldFile) tryAdd(more []kept, all func() []kept) error {
	if f.log == nil || f.lines+len(more) > manyLines {
		if every := all(); f.log == nil || 2*len(every) < f.lines {
			return f.rewrite(every)
		}
	}
	_, err := f.log.Write(linesOf(more))
	f.lines += len(more)
	return err
}

func (f *toldFile) rewrite(every []kept) error {
	if err := writeDurable(f.path, linesOf(every)); err != nil {
		return err
	}
	f.close()
	log, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	f.log, f.lines = log, len(every)
	return nil
}

func linesOf(all []kept) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	for _, k := range all {
		e.Encode(keptLine{k.VNI, k.Project, k.Workload, k.name, k.addr, k.until})
	}
	return b.Bytes()
}

func (f *toldFile) close() {
	if f.log != nil {
		f.log.Close()
		f.log = nil
	}
}
