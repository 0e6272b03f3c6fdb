package proxy

import (
	"errors"

	"moire.dev/moire/proxy/message"
)

var errTooLong = errors.New("request body is larger than allowed")

// kept is what of a request body is held back for another try.
type kept struct {
	b    []byte
	most int
	// on: all that came so far is in b. It goes off when that is too much.
	on bool
}

// keepBody begins to keep up to most bytes.
func (k *kept) keep(most int) { k.on, k.most = true, most }

func (k *kept) free() {
	if k.b != nil && cap(k.b) <= keepHeads {
		*k = kept{b: k.b[:0]}
		return
	}
	*k = kept{}
}

// pumpRequest moves the request body to the endpoint, the kept part first.
func (a *attempt) pumpRequest() (moved bool, err error) {
	x, w := a.x, a.x.w
	if a.up.finished {
		return false, nil
	}
	if !x.body.on && a.offset >= len(x.body.b) {
		return pump(w, &x.down, &a.up)
	}
	for more := x.body.on; more; {
		if more, err = x.keepMore(); err != nil {
			return moved, err
		}
	}
	if rest := x.body.b[a.offset:]; len(rest) > 0 {
		last := x.body.on && x.down.ended && x.down.trailers == nil
		n := a.up.put(w, rest, last)
		a.offset += n
		moved = n > 0
		if n < len(rest) {
			a.up.starved()
			return moved, nil
		}
	}
	switch {
	case !x.body.on:
		m, err := pump(w, &x.down, &a.up)
		return moved || m, err
	case x.down.ended && !a.up.finished:
		a.up.finish(w, x.down.trailers)
		moved = true
	}
	return moved, nil
}

// keepMore takes what came of the request body into what is kept, and says
// whether there may be more.
func (x *exchange) keepMore() (bool, error) {
	data, err := x.down.peek()
	if err != nil || len(data) == 0 {
		return false, err
	}
	if x.down.tooLong(len(data)) {
		return false, errTooLong
	}
	if len(x.body.b)+len(data) > x.body.most {
		x.body.on = false // too much to be sent again
		return false, nil
	}
	x.body.b = append(x.body.b, data...)
	x.down.take(len(data))
	return true, nil
}

// bodyKept: another try could be given all of the body.
func (x *exchange) bodyKept() bool {
	return x.body.on || x.down.read == 0 && (x.down.ended || x.req.Framing == message.None)
}
