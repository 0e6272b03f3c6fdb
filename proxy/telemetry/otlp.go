package telemetry

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// OpenTelemetry's protocol, by hand: the few messages of
// opentelemetry/proto/collector/trace/v1 that a proxy needs.

// Field numbers.
const (
	// ExportTraceServiceRequest
	requestResourceSpans = 1
	// ResourceSpans
	resourceSpansResource = 1
	resourceSpansScopes   = 2
	// Resource
	resourceAttributes = 1
	// ScopeSpans
	scopeSpansScope = 1
	scopeSpansSpans = 2
	// InstrumentationScope
	scopeName    = 1
	scopeVersion = 2
	// Span
	spanTraceID    = 1
	spanID         = 2
	spanParentID   = 4
	spanName       = 5
	spanKind       = 6
	spanStart      = 7
	spanEnd        = 8
	spanAttributes = 9
	spanStatus     = 15
	spanFlags      = 16
	// Status
	statusCode = 3
	// KeyValue
	keyValueKey   = 1
	keyValueValue = 2
	// AnyValue
	valueString = 1
	valueInt    = 3
	valueArray  = 5
	// ArrayValue
	arrayValues = 1
	// ExportTraceServiceResponse
	responsePartial = 1
	// ExportTracePartialSuccess
	partialRejected = 1
)

const (
	statusError = 2
	// flagsKnown: whether the parent is another process' is known; flagsRemote: it is.
	flagsKnown  = 1 << 8
	flagsRemote = 1 << 9
)

const scope = "moire.dev/moire/proxy"

// otlp encodes spans as elements of ScopeSpans.spans; body puts the rest around.
type otlp struct {
	resource []byte // ResourceSpans.resource, with its tag
	scope    []byte // ScopeSpans.scope, with its tag
	span     []byte // that is being made
	list     attributes
}

func newOTLP(service, version string) *otlp {
	var res, sc []byte
	res = appendAttribute(res, resourceAttributes, "service.name", service)
	if version != "" {
		res = appendAttribute(res, resourceAttributes, "service.version", version)
	}
	sc = appendString(sc, scopeName, scope)
	if version != "" {
		sc = appendString(sc, scopeVersion, version)
	}
	return &otlp{resource: appendMessage(nil, resourceSpansResource, res), scope: appendMessage(nil, scopeSpansScope, sc)}
}

func (*otlp) contentType() string { return "application/x-protobuf" }

// append writes the one or two spans of an exchange.
func (o *otlp) append(dst []byte, k *told) (grown []byte, n int) {
	dst = o.appendSpan(dst, k, serverKind)
	if !k.hasClientSpan() {
		return dst, 1
	}
	return o.appendSpan(dst, k, clientKind), 2
}

func (o *otlp) appendSpan(dst []byte, k *told, kind spanKinds) []byte {
	sp := k.span(kind)
	b := o.span[:0]
	b = appendMessage(b, spanTraceID, k.trace.ID[:])
	b = appendMessage(b, spanID, sp.id[:])
	if sp.parent != ([8]byte{}) {
		b = appendMessage(b, spanParentID, sp.parent[:])
	}
	b = appendString(b, spanName, clean(sp.name))
	b = protowire.AppendTag(b, spanKind, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(kind))
	b = protowire.AppendTag(b, spanStart, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, uint64(sp.start))
	b = protowire.AppendTag(b, spanEnd, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, uint64(sp.end))
	o.list.of(k, kind)
	for i := range o.list.all {
		b = o.list.all[i].appendTo(b)
	}
	if sp.failed {
		b = appendMessage(b, spanStatus, protowire.AppendVarint(protowire.AppendTag(nil, statusCode, protowire.VarintType), statusError))
	}
	flags := uint32(flagsKnown)
	if kind == serverKind && sp.parent != ([8]byte{}) {
		flags |= flagsRemote
	}
	if k.trace.bits&sampled != 0 {
		flags |= w3cFlagSampled
	}
	if k.trace.bits&random != 0 {
		flags |= w3cFlagRandom
	}
	b = protowire.AppendTag(b, spanFlags, protowire.Fixed32Type)
	b = protowire.AppendFixed32(b, flags)
	o.span = b
	return appendMessage(dst, scopeSpansSpans, b)
}

// body is a whole ExportTraceServiceRequest around spans.
func (o *otlp) body(spans []byte) []byte {
	scopeLength := len(o.scope) + len(spans)
	resourceLength := len(o.resource) + protowire.SizeTag(resourceSpansScopes) + protowire.SizeBytes(scopeLength)
	b := make([]byte, 0, resourceLength+16)
	b = protowire.AppendTag(b, requestResourceSpans, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(resourceLength))
	b = append(b, o.resource...)
	b = protowire.AppendTag(b, resourceSpansScopes, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(scopeLength))
	b = append(b, o.scope...)
	return append(b, spans...)
}

// rejected is how many spans of a request that was answered with success the
// collector did not take.
func (*otlp) rejected(answer []byte) int {
	partial := field(answer, responsePartial, protowire.BytesType)
	n := field(partial, partialRejected, protowire.VarintType)
	v, size := protowire.ConsumeVarint(n)
	if size < 0 || v > math.MaxInt32 {
		return 0
	}
	return int(v)
}

// field is the value of the first field with this number and type: for bytes
// their content, otherwise as on the wire.
func field(b []byte, number protowire.Number, kind protowire.Type) []byte {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return nil
		}
		if num == number && typ == kind {
			if typ == protowire.BytesType {
				v, _ := protowire.ConsumeBytes(b)
				return v
			}
			return b[:n]
		}
		b = b[n:]
	}
	return nil
}

func appendMessage(dst []byte, number protowire.Number, m []byte) []byte {
	dst = protowire.AppendTag(dst, number, protowire.BytesType)
	return protowire.AppendBytes(dst, m)
}

func appendString(dst []byte, number protowire.Number, s string) []byte {
	dst = protowire.AppendTag(dst, number, protowire.BytesType)
	return protowire.AppendString(dst, s)
}

// appendAttribute writes a KeyValue with a string.
func appendAttribute[T string | []byte](dst []byte, number protowire.Number, key string, value T) []byte {
	inner := protowire.SizeTag(valueString) + protowire.SizeBytes(len(value))
	dst = appendKey(dst, number, key, inner)
	dst = protowire.AppendTag(dst, valueString, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(len(value)))
	return append(dst, value...)
}

// appendKey writes a KeyValue up to where the content of its AnyValue, inner
// bytes, begins.
func appendKey(dst []byte, number protowire.Number, key string, inner int) []byte {
	length := protowire.SizeTag(keyValueKey) + protowire.SizeBytes(len(key)) + protowire.SizeTag(keyValueValue) + protowire.SizeBytes(inner)
	dst = protowire.AppendTag(dst, number, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(length))
	dst = appendString(dst, keyValueKey, key)
	dst = protowire.AppendTag(dst, keyValueValue, protowire.BytesType)
	return protowire.AppendVarint(dst, uint64(inner))
}

// appendTo writes the attribute as one of Span.attributes.
func (a *attribute) appendTo(dst []byte) []byte {
	switch a.kind {
	case isNumber:
		inner := protowire.SizeTag(valueInt) + protowire.SizeVarint(uint64(a.number))
		dst = appendKey(dst, spanAttributes, a.key, inner)
		dst = protowire.AppendTag(dst, valueInt, protowire.VarintType)
		return protowire.AppendVarint(dst, uint64(a.number))
	case isList:
		one := func(n int) int { return protowire.SizeTag(valueString) + protowire.SizeBytes(n) }
		array := 0
		for _, s := range a.list {
			array += protowire.SizeTag(arrayValues) + protowire.SizeBytes(one(len(s)))
		}
		dst = appendKey(dst, spanAttributes, a.key, protowire.SizeTag(valueArray)+protowire.SizeBytes(array))
		dst = protowire.AppendTag(dst, valueArray, protowire.BytesType)
		dst = protowire.AppendVarint(dst, uint64(array))
		for _, s := range a.list {
			dst = protowire.AppendTag(dst, arrayValues, protowire.BytesType)
			dst = protowire.AppendVarint(dst, uint64(one(len(s))))
			dst = appendString(dst, valueString, s)
		}
		return dst
	}
	return appendAttribute(dst, spanAttributes, a.key, a.text)
}
