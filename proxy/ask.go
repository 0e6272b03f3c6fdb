package proxy

import (
	"errors"
	"fmt"
	"strings"

	"moire.dev/moire/proxy/authz"
	"moire.dev/moire/proxy/message"
	"moire.dev/moire/proxy/resilience"
	"moire.dev/moire/proxy/route"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

var _ authz.Holder = (*exchange)(nil)

// Apart implements authz.Holder.
func (x *exchange) Apart(kind any, work func()) bool {
	done, loop, t := false, x.w.loop, x.t
	ok := x.w.p.notary.Do(kind, func() {
		work()
		loop.Post(func() {
			done = true
			t.Wake()
		})
	})
	for ok && !done {
		t.Park()
	}
	return ok
}

// inquiry is a question to a service outside, about another request. It is an
// exchange of its own, whose caller is the memory here.
type inquiry struct {
	about  *exchange
	answer []byte
	err    error
	over   bool
}

// maxAnswer is the most bytes of an answer that are read.
const maxAnswer = 128 << 10

var (
	methodPost  = []byte("POST")
	checkMethod = []byte("/envoy.service.auth.v3.Authorization/Check")
)

// Ask implements authz.Holder.
func (x *exchange) Ask(e *policy.External, question []byte) ([]byte, error) {
	i, ok := x.plan.named[e.Cluster]
	if !ok {
		return nil, fmt.Errorf("there is no cluster %q", e.Cluster)
	}
	q := &inquiry{about: x}
	y := x.w.newExchange(x.from)
	y.inquiry = q
	y.plan, y.speaker, y.grpc = x.plan, x.asker, true
	y.pool = y.speaker.pool(i)
	y.rule = &rule{Rule: &route.Rule{Route: &route.Route{}}, deadlines: resilience.NewDeadlines(l7.Timeouts{Request: l7.Duration(e.Timeout) * 1e6})}
	y.copyOf = &mirror{x: y, data: question, done: true}
	y.down.copy = y.copyOf
	h := &y.req
	h.Method, h.Path, h.Authority, h.Minor, h.Trailers = methodPost, checkMethod, []byte(authorityOf(e.Cluster)), 1, true
	h.Framing, h.Length = message.Sized, int64(len(question))
	h.Add(contentType, grpcContent)
	y.down.framing = message.Sized
	y.moved = x.w.loop.Now
	y.by = y.rule.deadlines.Whole(x.w.loop.Now, 0)
	y.t = x.w.loop.Go(y)
	for !q.over {
		x.t.Park()
	}
	return q.answer, q.err
}

// authorityOf is what a cluster's service is called by.
func authorityOf(cluster string) string {
	if parts := strings.Split(cluster, "/"); len(parts) == 4 {
		return parts[2] + "." + parts[1]
	}
	return strings.ReplaceAll(cluster, "/", ".")
}

// end tells the one who asked.
func (q *inquiry) end(err error) {
	q.err, q.over = err, true
	q.about.wake()
}

var errService = errors.New("the service that decides cannot be asked")

// inquire is the code of an inquiry.
func (x *exchange) inquire() error {
	if _, why := x.start(false); why != nil {
		return fmt.Errorf("%w: %s", errService, why.reason)
	}
	if why := x.ask(); why != nil {
		return fmt.Errorf("%w: %s", errService, why.reason)
	}
	a, q := x.won, x.inquiry
	result := x.result()
	err := x.readAnswer(a)
	if err == nil {
		x.grpcStatus()
		if x.resp.Status != 200 || x.rec.GRPC != 0 {
			err = fmt.Errorf("%w: it answers with status %d, gRPC %d", errService, x.resp.Status, x.rec.GRPC)
		}
	}
	a.finish(result, x.resp.Status, err == nil && a.up.ended && a.up.finished)
	x.live = 0
	if err != nil {
		q.answer = nil
	}
	return err
}

// readAnswer reads all of an answer to memory.
func (x *exchange) readAnswer(a *attempt) error {
	q := x.inquiry
	for !a.up.ended {
		data, err := a.up.peek()
		if err != nil {
			return err
		}
		if len(data) > 0 {
			if len(q.answer)+len(data) > maxAnswer {
				return fmt.Errorf("%w: its answer has more than %d bytes", errService, maxAnswer)
			}
			q.answer = append(q.answer, data...)
			a.up.take(len(data))
			continue
		}
		if a.up.ended {
			break
		}
		if _, err := a.pumpRequest(); err != nil {
			return err
		}
		if err := x.wait(); err != nil {
			return err
		}
	}
	return nil
}
