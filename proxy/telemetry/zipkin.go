package telemetry

import (
	"net/netip"
	"strconv"
)

// zipkin encodes spans as elements of Zipkin's list of spans, version 2.
// https://zipkin.io/zipkin-api/
type zipkin struct {
	service string
	list    attributes
}

func newZipkin(service string) *zipkin { return &zipkin{service: service} }

func (*zipkin) contentType() string { return "application/json" }

// append writes the one or two spans of an exchange, each with a comma after.
func (z *zipkin) append(dst []byte, k *told) (grown []byte, n int) {
	dst = z.appendSpan(dst, k, serverKind)
	if !k.hasClientSpan() {
		return dst, 1
	}
	return z.appendSpan(dst, k, clientKind), 2
}

func (z *zipkin) appendSpan(dst []byte, k *told, kind spanKinds) []byte {
	sp := k.span(kind)
	id := k.trace.ID[:]
	if k.trace.bits&narrow != 0 {
		id = id[8:]
	}
	dst = append(dst, `{"traceId":"`...)
	dst = appendHex(dst, id)
	dst = append(dst, '"')
	dst = appendSpan(dst, `,"parentId":"`, sp.parent)
	dst = appendSpan(dst, `,"id":"`, sp.id)
	if kind == serverKind {
		dst = append(dst, `,"kind":"SERVER"`...)
	} else {
		dst = append(dst, `,"kind":"CLIENT"`...)
	}
	dst = appendForeign(dst, `,"name":`, sp.name)
	dst = append(dst, `,"timestamp":`...)
	dst = strconv.AppendInt(dst, sp.start/1000, 10)
	dst = append(dst, `,"duration":`...)
	dst = strconv.AppendInt(dst, max((sp.end-sp.start)/1000, 1), 10)
	if k.trace.bits&debugged != 0 {
		dst = append(dst, `,"debug":true`...)
	}
	dst = append(dst, `,"localEndpoint":{"serviceName":`...)
	dst = appendQuoted(dst, z.service)
	local, remote := k.localAddress(), k.sourceAddress()
	if kind == clientKind {
		local, remote = netip.AddrPort{}, k.upstreamAddress()
	}
	dst = appendEndpoint(dst, local, true)
	dst = append(dst, '}')
	if remote.IsValid() {
		dst = append(dst, `,"remoteEndpoint":{`...)
		if kind == clientKind && k.cluster != "" {
			dst = append(dst, `"serviceName":`...)
			dst = appendQuoted(dst, k.cluster)
			dst = appendEndpoint(dst, remote, true)
		} else {
			dst = appendEndpoint(dst, remote, false)
		}
		dst = append(dst, '}')
	}
	dst = append(dst, `,"tags":{`...)
	z.list.of(k, kind)
	for i := range z.list.all {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = z.list.all[i].appendTag(dst)
	}
	if sp.failed { // Zipkin shows a span with this tag as failed
		dst = append(dst, `,"error":`...)
		dst = appendQuoted(dst, k.errorType())
	}
	return append(dst, '}', '}', ',')
}

func appendEndpoint(dst []byte, a netip.AddrPort, more bool) []byte {
	if !a.IsValid() {
		return dst
	}
	if more {
		dst = append(dst, ',')
	}
	if a.Addr().Is4() {
		dst = append(dst, `"ipv4":"`...)
	} else {
		dst = append(dst, `"ipv6":"`...)
	}
	dst = a.Addr().AppendTo(dst)
	dst = append(dst, `","port":`...)
	return strconv.AppendUint(dst, uint64(a.Port()), 10)
}

// appendTag: values of tags are text.
func (a *attribute) appendTag(dst []byte) []byte {
	dst = appendQuoted(dst, a.key)
	dst = append(dst, ':')
	switch a.kind {
	case isNumber:
		dst = append(dst, '"')
		dst = strconv.AppendInt(dst, a.number, 10)
		return append(dst, '"')
	case isList:
		dst = append(dst, '"')
		for i, s := range a.list {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, s...)
		}
		return append(dst, '"')
	}
	return appendQuoted(dst, a.text)
}

// body is the list.
func (*zipkin) body(spans []byte) []byte {
	b := make([]byte, 0, len(spans)+1)
	b = append(b, '[')
	b = append(b, spans...)
	b[len(b)-1] = ']'
	return b
}

func (*zipkin) rejected([]byte) int { return 0 }
