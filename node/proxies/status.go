package proxies

import "time"

// Status of one proxy, for people.
type Status struct {
	Name string
	PID  int
	// Since when it runs.
	Since time.Time
	// Up: it takes connections.
	Up bool
	// Workloads that it speaks for: interfaces.
	Interfaces int
	// Error says why it does not serve what it must be; "": it does.
	Error string
	// LeftOut are parts of its configuration that nobody could serve, and why.
	LeftOut []string
	// Starts counts processes since the agent was started, Last says how the one
	// before this ended.
	Starts int
	Last   string
	// Log is where it says what goes on, Admin the socket of its administrator's door.
	Log, Admin string
}

// Status lists all proxies, sorted by name.
func (p *Proxies) Status() []Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Status
	for _, g := range p.sorted() {
		d, k := g.door.Status(), g.keeper.Status()
		s := Status{Name: g.name, PID: d.PID, Since: k.Since, Up: up(d), LeftOut: g.leftOut, Starts: k.Starts, Last: k.Last, Log: g.logFile, Admin: g.admin()}
		if g.state.Config != nil {
			s.Interfaces = len(g.state.Config.Mesh.Workloads)
		}
		switch {
		case d.Refused > 0:
			s.Error = "it refuses its configuration: " + d.Reason
		case !s.Up:
			s.Error = "it is not there"
		}
		out = append(out, s)
	}
	return out
}
