package door

import (
	"encoding/json"
	"fmt"
	"slices"
	"unsafe"

	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// numbered is a configuration as it is sent. Workloads of one identity have the
// same Sets, which are sent once.
type numbered struct {
	Number uint64       `json:"number"`
	Config *l7.Config   `json:"config"`
	Sets   []policy.Set `json:"sets,omitempty"`
	// Of is the places in Sets of the two of each Workload: egress, ingress.
	Of [][2]int `json:"of,omitempty"`
}

// sameSet tells Sets apart that do not share their rules.
type sameSet struct {
	rules    *policy.Rule
	n        int
	isolated policy.RuleID
	audit    policy.RuleID
	last     policy.DefaultRule
}

func encodeConfig(number uint64, cfg *l7.Config) ([]byte, error) {
	n := numbered{Number: number, Config: cfg}
	if cfg.Mesh != nil {
		bare, mesh := *cfg, *cfg.Mesh
		mesh.Workloads = slices.Clone(mesh.Workloads)
		bare.Mesh, n.Config = &mesh, &bare
		known := map[sameSet]int{}
		for i := range mesh.Workloads {
			w := &mesh.Workloads[i]
			n.Of = append(n.Of, [2]int{n.add(known, &w.Egress), n.add(known, &w.Ingress)})
			w.Egress, w.Ingress = policy.Set{}, policy.Set{}
		}
	}
	return frame(configFrame, n)
}

// add is the place of a Set among those that are sent.
func (n *numbered) add(known map[sameSet]int, s *policy.Set) int {
	key := sameSet{unsafe.SliceData(s.Rules), len(s.Rules), s.Isolated, s.AuditIsolated, s.Default}
	at, ok := known[key]
	if !ok {
		at = len(n.Sets)
		known[key] = at
		n.Sets = append(n.Sets, *s)
	}
	return at
}

func decodeConfig(body []byte) (uint64, *l7.Config, error) {
	var n numbered
	if err := json.Unmarshal(body, &n); err != nil {
		return 0, nil, err
	}
	if n.Config == nil {
		return n.Number, nil, fmt.Errorf("configuration %d is empty", n.Number)
	}
	mesh := n.Config.Mesh
	if mesh == nil {
		return n.Number, n.Config, nil
	}
	if len(n.Of) != len(mesh.Workloads) {
		return n.Number, nil, fmt.Errorf("configuration %d has %d Workloads, and Sets for %d", n.Number, len(mesh.Workloads), len(n.Of))
	}
	for i, of := range n.Of {
		for _, at := range of {
			if at < 0 || at >= len(n.Sets) {
				return n.Number, nil, fmt.Errorf("configuration %d has no Set %d", n.Number, at)
			}
		}
		mesh.Workloads[i].Egress, mesh.Workloads[i].Ingress = n.Sets[of[0]], n.Sets[of[1]]
	}
	return n.Number, n.Config, nil
}
