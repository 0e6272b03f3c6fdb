package authz

import (
	"encoding/binary"
	"errors"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"moire.dev/moire/proxy/message"
)

// The fields of envoy.service.auth.v3.CheckRequest that are written. See the
// public definitions in envoy/service/auth/v3/{external_auth,attribute_context}.proto.
const (
	checkAttributes = 1

	attributesSource      = 1
	attributesDestination = 2
	attributesRequest     = 4

	peerAddress   = 1
	peerService   = 2
	peerLabels    = 3
	peerPrincipal = 4

	addressSocket = 1
	socketAddress = 2
	socketPort    = 3

	requestTime = 1
	requestHTTP = 2

	httpID       = 1
	httpMethod   = 2
	httpHeaders  = 3
	httpPath     = 4
	httpHost     = 5
	httpScheme   = 6
	httpSize     = 9
	httpProtocol = 10

	entryKey, entryValue = 1, 2
)

// framePrefix is what stands in front of a message of gRPC: a flag that says
// compressed, and its length.
const framePrefix = 5

// errNotText: protobuf's texts are UTF-8, so that nobody could be asked about
// exactly these bytes.
var errNotText = errors.New("the request has bytes that are not UTF-8, which the service cannot be asked about")

// appendQuestion writes the message that asks about a request, framed.
func (c *Case) appendQuestion(b []byte) ([]byte, error) {
	w := writer{b: append(b[:0], 0, 0, 0, 0, 0)}
	w.message(checkAttributes, func() {
		w.message(attributesSource, func() { w.party(&c.Source) })
		w.message(attributesDestination, func() { w.party(&c.Destination) })
		w.message(attributesRequest, func() {
			w.message(requestTime, func() { w.number(1, c.Now); w.number(2, int64(c.Nanos)) })
			w.message(requestHTTP, func() { w.request(c) })
		})
	})
	binary.BigEndian.PutUint32(w.b[1:], uint32(len(w.b)-framePrefix))
	return w.b, w.err
}

// writer appends fields of protobuf messages. What has its zero value is left
// out, as proto3 does.
type writer struct {
	b   []byte
	err error
}

func (w *writer) number(field protowire.Number, v int64) {
	if v != 0 {
		w.b = protowire.AppendVarint(protowire.AppendTag(w.b, field, protowire.VarintType), uint64(v))
	}
}

func (w *writer) bytes(field protowire.Number, v []byte) {
	if len(v) == 0 {
		return
	}
	if !utf8.Valid(v) {
		w.err = errNotText
	}
	w.b = protowire.AppendBytes(protowire.AppendTag(w.b, field, protowire.BytesType), v)
}

func (w *writer) text(field protowire.Number, v string) {
	if v == "" {
		return
	}
	if !utf8.ValidString(v) {
		w.err = errNotText
	}
	w.b = protowire.AppendString(protowire.AppendTag(w.b, field, protowire.BytesType), v)
}

// message appends what write writes, with its length in front.
func (w *writer) message(field protowire.Number, write func()) {
	w.b = protowire.AppendTag(w.b, field, protowire.BytesType)
	start := len(w.b)
	write()
	var length [10]byte
	w.b = slices.Insert(w.b, start, protowire.AppendVarint(length[:0], uint64(len(w.b)-start))...)
}

func (w *writer) party(p *Party) {
	if p.Address.IsValid() {
		w.message(peerAddress, func() {
			w.message(addressSocket, func() {
				w.text(socketAddress, p.Address.Addr().String())
				w.number(socketPort, int64(p.Address.Port()))
			})
		})
	}
	w.text(peerService, p.Name)
	for k, v := range p.Labels {
		w.message(peerLabels, func() { w.text(entryKey, k); w.text(entryValue, v) })
	}
	w.text(peerPrincipal, p.Principal)
}

// request writes the head: what the endpoint will get, with pseudo fields as
// Envoy has them.
func (w *writer) request(c *Case) {
	h := c.Head
	m, scheme, size := method(h), h.Scheme, int64(-1)
	if len(scheme) == 0 {
		scheme = plainScheme
	}
	switch h.Framing {
	case message.None:
		size = 0
	case message.Sized:
		size = h.Length
	}
	w.bytes(httpID, c.ID)
	w.bytes(httpMethod, m)
	for _, f := range [...]struct {
		name  string
		value []byte
	}{{":authority", h.Authority}, {":method", m}, {":path", h.Path}, {":scheme", scheme}} {
		w.message(httpHeaders, func() { w.text(entryKey, f.name); w.bytes(entryValue, f.value) })
	}
	for i := range h.Fields {
		if first(h.Fields, i) {
			w.message(httpHeaders, func() { w.bytes(entryKey, h.Fields[i].Name); w.joined(h.Fields, i) })
		}
	}
	w.bytes(httpPath, h.Path)
	w.bytes(httpHost, h.Authority)
	w.bytes(httpScheme, scheme)
	w.number(httpSize, size)
	w.text(httpProtocol, c.Protocol)
}

var plainScheme = []byte("http")

// first says whether field i is the first of its name.
func first(fields []message.Field, i int) bool {
	for j := range fields[:i] {
		if same(&fields[j], &fields[i]) {
			return false
		}
	}
	return true
}

func same(a, b *message.Field) bool {
	return a.ID == b.ID && (a.ID != message.Other || string(a.Name) == string(b.Name))
}

// joined writes the values of all fields with the name of field i as one value
// (RFC 9110 5.2, RFC 9113 8.2.3).
func (w *writer) joined(fields []message.Field, i int) {
	w.b = protowire.AppendTag(w.b, entryValue, protowire.BytesType)
	separator := ","
	if fields[i].ID == message.Cookie {
		separator = "; "
	}
	n := len(fields[i].Value)
	for j := i + 1; j < len(fields); j++ {
		if same(&fields[i], &fields[j]) {
			n += len(separator) + len(fields[j].Value)
		}
	}
	w.b = protowire.AppendVarint(w.b, uint64(n))
	start := len(w.b)
	w.b = append(w.b, fields[i].Value...)
	for j := i + 1; j < len(fields); j++ {
		if same(&fields[i], &fields[j]) {
			w.b = append(append(w.b, separator...), fields[j].Value...)
		}
	}
	if !utf8.Valid(w.b[start:]) {
		w.err = errNotText
	}
}
