package door

import (
	"errors"
	"fmt"
	"slices"

	"moire.dev/moire/snapshot/l7"
)

// State is everything that a proxy must be. Never change one after it was handed
// over; its Sockets are told apart by their pointers.
type State struct {
	Config *l7.Config
	// Sockets by the key that is Workload.Namespace in Config.Mesh.
	Sockets map[string]*Sockets
}

// Sockets are descriptors of one network namespace.
type Sockets struct {
	// Namespace is the namespace itself, as it is opened in /proc or /run/netns.
	Namespace int
	// Outbound and Inbound listen, in the namespace, for connections of its
	// Workloads and for those that come to them: a SO_REUSEPORT group each, with
	// one socket for each worker of the proxy.
	Outbound, Inbound []int
}

// Status of the proxy behind a door.
type Status struct {
	// Up: a proxy has applied a State, and gave its sign of life within the grace.
	Up bool
	// PID of the proxy that serves, and how many workers it has; 0: there is none.
	PID, Workers int
	// Applied is the number of the newest State that it serves; 0: none.
	Applied uint64
	// Refused is the number of a newer State that it cannot serve, and Reason why;
	// 0: there is none.
	Refused uint64
	Reason  string
	// Ejected endpoints: outlier detection or checks have put them aside.
	Ejected []Ejection
}

// Ejection is an endpoint of a cluster that takes no requests now.
type Ejection struct {
	Cluster string `json:"cluster"`
	Address string `json:"address"`
	// Reason: consecutive 5xx, success rate, check and so on.
	Reason string `json:"reason"`
}

func (s Status) equal(o Status) bool {
	return s.Up == o.Up && s.PID == o.PID && s.Workers == o.Workers && s.Applied == o.Applied && s.Refused == o.Refused &&
		s.Reason == o.Reason && slices.Equal(s.Ejected, o.Ejected)
}

// RefusedError says that the proxy cannot serve a State.
type RefusedError struct {
	Number uint64
	Reason string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the proxy refuses its configuration: %s", e.Reason)
}

// errGone: the State that was being sent is not the newest any more.
var errGone = errors.New("superseded")
