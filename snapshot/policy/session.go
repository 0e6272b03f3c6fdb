package policy

// Decider is a Set made ready to decide about requests: its expressions are
// compiled. It never changes, and any number of goroutines may use it.
type Decider struct {
	set  *Set
	asks [][]ask // of each rule
}

// Session is the part of a Decider that one session meets. It never changes.
type Session struct {
	set     Set // its rules match the packets of the session
	asks    [][]ask
	shadows bool
	fields  bool
}

// DecideRequest says what happens to a request of the session of a packet. Who
// decides about many keeps a Decider, and a Session for each connection.
func (s *Set) DecideRequest(p Packet, r *Request) Verdict {
	return s.Decider().Session(p).Decide(r)
}

// Decider makes the Set ready; the Set must not change any more.
func (s *Set) Decider() *Decider {
	d := &Decider{set: s, asks: make([][]ask, len(s.Rules))}
	for i := range s.Rules {
		for j := range s.Rules[i].Requests {
			d.asks[i] = append(d.asks[i], ready(&s.Rules[i].Requests[j]))
		}
	}
	return d
}

// Decide is Decide of the Set.
func (d *Decider) Decide(p Packet) Verdict { return d.set.Decide(p) }

// Session finds the rules that the packets of a session meet.
func (d *Decider) Session(p Packet) *Session {
	if p.Protocol == 58 {
		p.Protocol = ICMP
	}
	s := &Session{set: Set{Isolated: d.set.Isolated, AuditIsolated: d.set.AuditIsolated, Default: d.set.Default}}
	region := peerRegion(p.PeerAddr)
	for i := range d.set.Rules {
		if r := &d.set.Rules[i]; r.packet(region, p) != unmet {
			s.set.Rules = append(s.set.Rules, *r)
			s.asks = append(s.asks, d.asks[i])
			for j := range d.asks[i] {
				s.fields = s.fields || len(d.asks[i][j].headers) > 0
			}
		}
	}
	s.shadows = s.set.shadows()
	return s
}

// Fields says whether any rule of the session compares header fields: if none
// does, a Request needs none.
func (s *Session) Fields() bool { return s.fields }

// Rules are those that the session meets, in the order in which they are asked.
// Nobody may change them.
func (s *Session) Rules() []Rule { return s.set.Rules }

// Decide says what happens to a request. It allocates nothing.
func (s *Session) Decide(r *Request) Verdict {
	v, _ := s.set.judge(s.shadows, nil, func(i int) match { return s.match(i, r) })
	return v
}

// Walk is Decide with every stop on the way.
func (s *Session) Walk(r *Request) (Verdict, []Step) {
	return s.set.judge(s.shadows, []Step{}, func(i int) match { return s.match(i, r) })
}

// match asks one rule. What cannot be known counts against the request.
func (s *Session) match(i int, r *Request) match {
	asks := s.asks[i]
	if len(asks) == 0 {
		return met
	}
	out := No
	for j := range asks {
		if out = or(out, asks[j].answer(r)); out == Yes {
			return met
		}
	}
	if out == Unknown && s.set.Rules[i].Action == Deny {
		return unknown
	}
	return unmet
}
