package flow

import "moire.dev/moire/flow/record"

// ring is a queue bounded in records and bytes; when it is full the oldest go.
// Not safe for concurrent use.
type ring struct {
	maxRecords int
	maxBytes   int64

	slots []record.Record // grows up to maxRecords, then wraps
	first uint64          // sequence number of the oldest
	next  uint64          // sequence number of the next
	bytes int64
}

func newRing(maxRecords int, maxBytes int64) *ring {
	return &ring{maxRecords: maxRecords, maxBytes: maxBytes}
}

func (r *ring) len() int { return int(r.next - r.first) }

// at returns the record with that sequence number, first <= seq < next.
func (r *ring) at(seq uint64) *record.Record { return &r.slots[seq%uint64(len(r.slots))] }

// push adds one record and returns how many old ones had to go.
func (r *ring) push(rec record.Record) (dropped uint64) {
	size := sizeOf(&rec)
	for r.len() > 0 && (r.len() >= r.maxRecords || r.bytes+size > r.maxBytes) {
		r.pop()
		dropped++
	}
	if r.len() == len(r.slots) {
		r.grow()
	}
	*r.at(r.next) = rec
	r.next++
	r.bytes += size
	return dropped
}

// pop forgets the oldest.
func (r *ring) pop() {
	slot := r.at(r.first)
	r.bytes -= sizeOf(slot)
	*slot = record.Record{}
	r.first++
}

// grow doubles the slots.
func (r *ring) grow() {
	bigger := make([]record.Record, min(max(64, 2*len(r.slots)), max(1, r.maxRecords)))
	for seq := r.first; seq < r.next; seq++ {
		bigger[seq%uint64(len(bigger))] = *r.at(seq)
	}
	r.slots = bigger
}

// recordSize is what a Record without its strings and maps takes in memory.
const recordSize = 768

// requestSize is the same for its Request.
const requestSize = 384

// sizeOf estimates the bytes that a Record holds in memory.
func sizeOf(r *record.Record) int64 {
	n := recordSize + len(r.ID) + len(r.Rule) + len(r.IngressRule) + len(r.ShadowRule) +
		len(r.Service) + len(r.Route) + len(r.TraceID) + len(r.Drop) + len(r.Node)
	for _, e := range []*record.End{&r.Source, &r.Destination} {
		n += len(e.Domain) + len(e.Project) + len(e.Network) + len(e.Workload) + len(e.Identity) + len(e.Node)
		for k, v := range e.Labels {
			n += 64 + len(k) + len(v)
		}
	}
	if q := r.Request; q != nil {
		n += requestSize + len(q.ID) + len(q.Method) + len(q.Host) + len(q.Path) + len(q.Rule) + len(q.Cluster) + len(q.Agent) + len(q.Forwarded)
	}
	return int64(n)
}
