package node

import (
	"golang.org/x/sys/unix"

	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
)

// view is what readers outside of the loop see. Immutable.
type view struct {
	status      local.Status
	attachments []local.Attachment
	snapshot    *snapshot.Snapshot // in force; nil: none yet
	wanted      *snapshot.Snapshot // nil: none yet
}

// show publishes the view.
func (l *loop) show() {
	s := l.newest()
	v := &view{snapshot: l.good, wanted: l.wanted, attachments: []local.Attachment{}, status: local.Status{
		Node: l.cfg.Name, Address: l.cfg.Address, Agent: l.cfg.Version, Started: l.since, WorkloadAPI: l.cfg.workloadAPI(),
		Connected: l.away.IsZero(), Stale: !l.away.IsZero(),
		Wanted: string(l.versions.wanted), Applied: string(l.versions.good),
		WantedSince: l.versions.wantedSince, AppliedSince: l.versions.goodSince, Error: l.failure,
		Held: l.waits(), Repairs: l.repairs.count, LastRepair: l.repairs.last,
		Networks: len(s.Networks), Endpoints: len(s.Endpoints), Attachments: len(l.attached),
	}}
	for _, a := range l.sorted() {
		v.attachments = append(v.attachments, a.describe(l.inside(a)))
	}
	l.view.Store(v)
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
