package cli

import (
	"bufio"
	"encoding/json"
	"os"

	"moire.dev/moire/cli/fault"
	"moire.dev/moire/explain"
	"moire.dev/moire/flow/record"
)

// ofRequest puts the request of the flags into the question.
func (f *explainFlags) ofRequest(q *explain.Query) error {
	if f.request == "" {
		if len(f.headers)+len(f.claims) > 0 || f.external != "" {
			return fault.Usagef(`say which request: --request "GET /cart"`, "--header, --claim and --external are about a request")
		}
		return nil
	}
	r, err := explain.ParseRequest(f.request)
	if err == nil {
		err = r.Add(f.headers, f.claims, f.external)
	}
	if err != nil {
		return fault.Usagef(`write it like: --request "GET /cart" -H "x-role: admin" --claim groups=staff`, "%v", err)
	}
	if q.Request = r; f.port == 0 {
		f.port = 80
	}
	if q.Protocol != "tcp" {
		return fault.Usagef("leave --proto out", "requests travel in tcp, not in %s", q.Protocol)
	}
	return nil
}

// onlyRecord checks the flags that a record makes needless.
func (f *explainFlags) onlyRecord() error {
	switch {
	case f.from != "" || f.to != "" || f.port != 0 || f.request != "":
		return fault.Usagef("leave them out", "--record says itself who sent what to whom; --from, --to, --port and --request do not go with it")
	case len(f.files) > 0 && f.records == "":
		return fault.Usagef("write the records into a file, `moire flows -o json > records.json`, and name it with --records", "--record without a server needs the record")
	}
	return nil
}

// recorded finds the record in the file of records: of a request rather than of
// its session, and the newest.
func (f *explainFlags) recorded() (*record.Record, error) {
	file, err := os.Open(f.records)
	if err != nil {
		return nil, fault.Usagef("name the file that `moire flows -o json` wrote", "--records: %v", err)
	}
	defer file.Close()
	var found *record.Record
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r record.Record
		if len(lines.Bytes()) == 0 || json.Unmarshal(lines.Bytes(), &r) != nil {
			continue // not a record
		}
		of := r.ID == f.record || r.TraceID == f.record || r.Request != nil && r.Request.ID == f.record
		if of && (found == nil || found.Request == nil || r.Request != nil) {
			found = &r
		}
	}
	switch {
	case lines.Err() != nil:
		return nil, fault.Usagef("write it anew with `moire flows -o json`", "--records %s: %v", f.records, lines.Err())
	case found == nil:
		return nil, fault.Usagef("`moire flows -o json` shows what there is", "%s has no record with the id %q", f.records, f.record)
	}
	return found, nil
}
