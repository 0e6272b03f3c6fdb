package authz

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"moire.dev/moire/proxy/message"
)

// The fields of envoy.service.auth.v3.CheckResponse that are read.
const (
	checkStatus = 1
	checkDenied = 2
	checkOK     = 3
	checkError  = 5
	statusCode  = 1 // of google.rpc.Status, and of envoy.type.v3.HttpStatus

	deniedStatus  = 1
	deniedHeaders = 2
	deniedBody    = 3

	okHeaders       = 2
	okRemove        = 5
	okAnswerHeaders = 6
	okSetQuery      = 7
	okRemoveQuery   = 8

	optionHeader, optionAppend, optionAction, optionKeepEmpty = 1, 2, 3, 4
	headerKey, headerValue, headerRaw                         = 1, 2, 3
)

// Bounds of an answer.
const (
	maxAnswer  = 64 << 10
	maxChanges = 100
)

// What becomes of a field of that name that is there already.
const (
	actionAppend          = 0 // added beside it
	actionIfAbsent        = 1 // kept, and nothing is added
	actionOverwrite       = 2 // replaced
	actionOverwriteExists = 3 // replaced; where there is none, nothing is added
)

// answer is what a service said.
type answer struct {
	agrees bool
	failed bool // it says itself that it failed
	status int  // of a denial
	body   []byte
	// fields of the request, or of the denial; onAnswer are of the endpoint's answer.
	fields, onAnswer []change
	remove           []string
}

// change of one header field.
type change struct {
	name, value string
	action      int
}

var errGarbled = errors.New("the service answered with something else than a CheckResponse")

// readAnswer reads a framed message.
func readAnswer(b []byte) (*answer, error) {
	if len(b) < framePrefix || b[0] != 0 || uint64(binary.BigEndian.Uint32(b[1:])) != uint64(len(b)-framePrefix) {
		return nil, errGarbled
	}
	if len(b) > maxAnswer {
		return nil, fmt.Errorf("an answer of %d bytes is larger than %d", len(b), maxAnswer)
	}
	a := &answer{agrees: true}
	var denied, ok []byte
	err := each(b[framePrefix:], func(field protowire.Number, v value) error {
		switch field {
		case checkStatus:
			return each(v.bytes, func(f protowire.Number, v value) error {
				if f == statusCode && v.number != 0 {
					a.agrees = false
				}
				return nil
			})
		case checkDenied:
			denied, ok, a.failed = v.bytes, nil, false
		case checkError:
			denied, ok, a.failed = v.bytes, nil, true
		case checkOK:
			denied, ok, a.failed = nil, v.bytes, false
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case a.agrees && denied == nil:
		return a, a.readOK(ok)
	case a.agrees:
		return nil, errors.New("the service agrees and denies in one answer")
	case ok != nil:
		return a, nil
	}
	return a, a.readDenied(denied)
}

func (a *answer) readDenied(b []byte) error {
	return each(b, func(field protowire.Number, v value) error {
		switch field {
		case deniedStatus:
			return each(v.bytes, func(f protowire.Number, v value) error {
				if f == statusCode {
					a.status = int(min(v.number, 1000))
				}
				return nil
			})
		case deniedHeaders:
			return readChange(&a.fields, v.bytes, ignore)
		case deniedBody:
			a.body = v.bytes
		}
		return nil
	})
}

func (a *answer) readOK(b []byte) error {
	return each(b, func(field protowire.Number, v value) error {
		switch field {
		case okHeaders:
			return readChange(&a.fields, v.bytes, refuse)
		case okAnswerHeaders:
			return readChange(&a.onAnswer, v.bytes, ignore)
		case okRemove:
			if len(a.remove) >= maxChanges {
				return errors.New("too many fields are to be removed")
			}
			a.remove = append(a.remove, strings.ToLower(string(v.bytes)))
		case okSetQuery, okRemoveQuery:
			return errors.New("the service wants the query changed, which is not done")
		}
		return nil
	})
}

// What becomes of a change that a service may not make: in a request it counts on
// it, so that the answer is refused; in what a caller gets it does not matter.
const (
	ignore = false
	refuse = true
)

// readChange reads a HeaderValueOption.
func readChange(out *[]change, b []byte, strict bool) error {
	c := change{action: actionOverwrite}
	keep := false
	err := each(b, func(field protowire.Number, v value) error {
		switch field {
		case optionHeader:
			return each(v.bytes, func(f protowire.Number, v value) error {
				switch f {
				case headerKey:
					c.name = strings.ToLower(string(v.bytes))
				case headerValue, headerRaw:
					c.value = string(v.bytes)
				}
				return nil
			})
		case optionAppend:
			return each(v.bytes, func(f protowire.Number, v value) error {
				if f == 1 && v.number != 0 {
					c.action = actionAppend
				}
				return nil
			})
		case optionAction:
			c.action = int(min(v.number, 1000))
		case optionKeepEmpty:
			keep = v.number != 0
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case c.value == "" && !keep:
		return nil
	case len(*out) >= maxChanges:
		return errors.New("too many fields are to be changed")
	case c.action > actionOverwriteExists:
		return fmt.Errorf("append_action %d is not known", c.action)
	case !mayChange(c.name) && !strict:
		return nil
	case !mayChange(c.name):
		return fmt.Errorf("the service may not set the field %.60q", c.name)
	case !isValue(c.value):
		return fmt.Errorf("the value of %s has bytes that no field may have", c.name)
	}
	*out = append(*out, c)
	return nil
}

// mayChange says whether a service may set a field. It may not set what frames a
// message or belongs to a connection, what was decided about (method, host,
// path), nor what we alone say.
func mayChange(name string) bool {
	if name == "" || strings.HasPrefix(name, "x-moire-") || strings.HasPrefix(name, "l5d-") {
		return false
	}
	for i := range len(name) {
		if !isNameByte(name[i]) {
			return false
		}
	}
	switch message.Known(name) {
	case message.Host, message.Connection, message.KeepAlive, message.ProxyConnection, message.TransferEncoding, message.ContentLength,
		message.TE, message.Trailer, message.Upgrade, message.Expect, message.HTTP2Settings:
		return false
	}
	return true
}

// isNameByte: a token (RFC 9110 5.6.2) in lower case. No colon, so no pseudo field.
func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// isValue says whether a text can be the value of a field.
func isValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return s == strings.Trim(s, " \t")
}

// value of one field of a message.
type value struct {
	number uint64
	bytes  []byte
}

// each calls do for every field of a message.
func each(b []byte, do func(protowire.Number, value) error) error {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errGarbled
		}
		b = b[n:]
		var v value
		switch kind {
		case protowire.VarintType:
			v.number, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			v.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(field, kind, b)
		}
		if n < 0 {
			return errGarbled
		}
		if err := do(field, v); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
