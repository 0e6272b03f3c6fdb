package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"

	"moire.dev/moire/datapath"
	"moire.dev/moire/health"
	"moire.dev/moire/snapshot"
)

// checks is the applier that has the snapshot's checks done, from the node's
// presence in each Network: the room health in the words of this one.
type checks struct{ prober *health.Prober }

// newChecks: changed is called when the health of something has changed.
func newChecks(p *presence, changed func(), log *slog.Logger) *checks {
	return &checks{health.New(health.Config{
		In: p.there.Do,
		Device: func(vni snapshot.VNI) string {
			devices, _ := p.state()
			if _, ok := devices[vni]; !ok {
				return ""
			}
			return datapath.PresenceDevice(vni)
		},
		Source4: snapshot.NameServer4, Source6: snapshot.NameServer6,
		Changed: changed, Log: log,
	})}
}

func (c *checks) Name() string { return "health" }

func (c *checks) Grow(s State) error {
	c.prober.Set(slices.Collect(maps.Values(s.Snapshot.Checks)))
	return nil
}

func (c *checks) Shrink(State) error { return nil }

func (c *checks) Dump(w io.Writer) error {
	for _, h := range c.prober.Health() {
		fmt.Fprintf(w, "health %s healthy=%t since=%s error=%q\n", h.CheckKey, h.Healthy, h.Since.UTC().Format("15:04:05.000"), h.Error)
	}
	return nil
}

func (c *checks) run(ctx context.Context) error { return c.prober.Run(ctx) }
