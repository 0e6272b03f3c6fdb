package smuggle

import (
	"fmt"
	"strings"
)

// Want is what a strict proxy does with a Case.
type Want uint8

// Wants.
const (
	// Reject: ambiguous or malformed, so 4xx or 5xx and close, nothing forwarded.
	Reject Want = iota
	// Forward: right, so it reaches the back end and is answered.
	Forward
	// Either is safe.
	Either
)

func (w Want) String() string { return [...]string{"reject", "forward", "either"}[w] }

// Case is what a client sends on one connection.
type Case struct {
	Name string
	// Raw is sent as it stands, but for {id}, which becomes the Case's mark.
	Raw  string
	Want Want
}

const (
	head = "Host: a.test\r\n"
	// hidden is a request that only one of two readers takes for a request.
	hidden = "GET /s/{id} HTTP/1.1\r\nHost: a.test\r\n\r\n"
)

// Corpus is the whole table for HTTP/1, in a fixed order; names are unique.
func Corpus() []Case {
	var all []Case
	for _, family := range []func() []Case{
		transferEncodings, contentLengths, lineEnds, chunks, trailers, requestLines, versions, hosts, names, connections, bodies, targets,
	} {
		all = append(all, family()...)
	}
	return all
}

// variant is one spelling of a thing.
type variant struct {
	name string
	text string
	want Want
}

func each(family string, vs []variant, raw func(text string) string) []Case {
	cases := make([]Case, 0, len(vs))
	for _, v := range vs {
		cases = append(cases, Case{Name: family + "/" + v.name, Raw: raw(v.text), Want: v.want})
	}
	return cases
}

// unless gives every variant one Want, but keeps Either.
func unless(vs []variant, want Want) []variant {
	out := make([]variant, len(vs))
	for i, v := range vs {
		if v.want != Either {
			v.want = want
		}
		out[i] = v
	}
	return out
}

var encodings = []variant{
	{"plain", "Transfer-Encoding: chunked", Forward},
	{"lower-name", "transfer-encoding: chunked", Forward},
	{"upper", "TRANSFER-ENCODING: CHUNKED", Forward},
	{"mixed-value", "Transfer-Encoding: cHuNkEd", Forward},
	{"no-space", "Transfer-Encoding:chunked", Forward},
	{"two-spaces", "Transfer-Encoding:  chunked", Forward},
	{"tab", "Transfer-Encoding:\tchunked", Forward},
	{"space-after", "Transfer-Encoding: chunked ", Forward},
	{"tab-after", "Transfer-Encoding: chunked\t", Forward},
	{"space-before-colon", "Transfer-Encoding : chunked", Reject},
	{"tab-before-colon", "Transfer-Encoding\t: chunked", Reject},
	{"leading-space", " Transfer-Encoding: chunked", Reject},
	{"leading-tab", "\tTransfer-Encoding: chunked", Reject},
	{"prefix", "Transfer-Encoding: xchunked", Reject},
	{"suffix", "Transfer-Encoding: chunkedx", Reject},
	{"identity", "Transfer-Encoding: identity", Reject},
	{"identity-last", "Transfer-Encoding: chunked, identity", Reject},
	{"identity-first", "Transfer-Encoding: identity, chunked", Reject},
	{"twice-in-list", "Transfer-Encoding: chunked, chunked", Reject},
	{"gzip-first", "Transfer-Encoding: gzip, chunked", Either},
	{"gzip-last", "Transfer-Encoding: chunked, gzip", Reject},
	{"comma-first", "Transfer-Encoding: , chunked", Either},
	{"comma-last", "Transfer-Encoding: chunked,", Either},
	{"semicolon", "Transfer-Encoding: chunked;", Reject},
	{"parameter", "Transfer-Encoding: chunked;a=b", Reject},
	{"quoted", "Transfer-Encoding: \"chunked\"", Reject},
	{"single-quoted", "Transfer-Encoding: 'chunked'", Reject},
	{"nul-after", "Transfer-Encoding: chunked\x00", Reject},
	{"nul-before", "Transfer-Encoding: \x00chunked", Reject},
	{"vt-before", "Transfer-Encoding: \x0bchunked", Reject},
	{"vt-after", "Transfer-Encoding: chunked\x0b", Reject},
	{"ff-before", "Transfer-Encoding: \x0cchunked", Reject},
	{"nbsp-before", "Transfer-Encoding: \xa0chunked", Reject},
	{"utf8-nbsp-before", "Transfer-Encoding: \xc2\xa0chunked", Reject},
	{"tab-inside", "Transfer-Encoding: chun\tked", Reject},
	{"kelvin", "Transfer-Encoding: chun\xe2\x84\xaaed", Reject},
	{"cr-after", "Transfer-Encoding: chunked\r", Reject},
	{"cr-word", "Transfer-Encoding: chunked\rx", Reject},
	{"fold-space", "Transfer-Encoding:\r\n chunked", Reject},
	{"fold-tab", "Transfer-Encoding:\r\n\tchunked", Reject},
	{"fold-empty", "Transfer-Encoding: chunked\r\n ", Reject},
	{"fold-name", "Transfer-Encoding\r\n : chunked", Reject},
	{"fold-of-another", "X-A: b\r\n Transfer-Encoding: chunked", Reject},
	{"lf-fold", "Transfer-Encoding:\n chunked", Reject},
	{"underscore", "Transfer_Encoding: chunked", Either},
	{"twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Reject},
	{"then-identity", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", Reject},
	{"after-identity", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", Reject},
	{"after-cow", "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked", Reject},
	{"after-empty", "Transfer-Encoding:\r\nTransfer-Encoding: chunked", Reject},
	{"empty", "Transfer-Encoding:", Reject},
	{"behind-lf", "X-A: b\nTransfer-Encoding: chunked", Reject},
	{"behind-cr", "X-A: b\rTransfer-Encoding: chunked", Reject},
	{"behind-nul", "X-A: b\x00\r\nTransfer-Encoding: chunked", Reject},
	{"ends-in-lf", "Transfer-Encoding: chunked\nX-A: b", Reject},
	{"nul-in-name", "Transfer\x00-Encoding: chunked", Reject},
	{"nul-ends-name", "Transfer-Encoding\x00: chunked", Reject},
	{"vt-ends-name", "Transfer-Encoding\x0b: chunked", Reject},
	{"space-in-name", "Transfer Encoding: chunked", Reject},
	{"equals", "Transfer-Encoding=chunked", Reject},
	{"two-colons", "Transfer-Encoding:: chunked", Reject},
	{"colon-first", ":Transfer-Encoding: chunked", Reject},
	{"latin-name", "Transfer-Encod\xedng: chunked", Reject},
	{"bom", "\xef\xbb\xbfTransfer-Encoding: chunked", Reject},
}

// transferEncodings: each spelling alone, and with a Content-Length that agrees
// with the other reading, either way around.
func transferEncodings() []Case {
	chunked := "0\r\n\r\n" + hidden
	cases := each("te-alone", encodings, func(te string) string {
		return "POST /c/{id} HTTP/1.1\r\n" + head + te + "\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
	})
	cases = append(cases, each("cl.te", unless(encodings, Reject), func(te string) string {
		return fmt.Sprintf("POST /c/{id} HTTP/1.1\r\n%sContent-Length: %d\r\n%s\r\n\r\n%s", head, size(chunked), te, chunked)
	})...)
	return append(cases, each("te.cl", unless(encodings, Reject), func(te string) string {
		return fmt.Sprintf("POST /c/{id} HTTP/1.1\r\n%s%s\r\nContent-Length: 4\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", head, te, size(hidden), hidden)
	})...)
}

// MarkSize is the length of every mark that stands for {id}.
const MarkSize = 8

// size is the length of s once its marks are in.
func size(s string) int {
	return len(s) + strings.Count(s, "{id}")*(MarkSize-len("{id}"))
}

func contentLengths() []Case {
	values := []variant{
		{"plain", "5", Forward}, {"leading-zero", "05", Either}, {"many-zeros", "00000000000000000000000005", Either},
		{"plus", "+5", Reject}, {"minus", "-5", Reject}, {"minus-zero", "-0", Reject}, {"hex", "0x5", Reject}, {"hex-digit", "a", Reject},
		{"fraction", "5.0", Reject}, {"exponent", "5e0", Reject}, {"list-same", "5, 5", Either}, {"list-differs", "5, 6", Reject}, {"list-empty", "5,", Reject},
		{"two-words", "5 5", Reject}, {"empty", "", Reject}, {"word", "five", Reject}, {"quoted", "\"5\"", Reject}, {"underscore", "1_0", Reject},
		{"nul", "5\x00", Reject}, {"vt", "\x0b5", Reject}, {"ff", "5\x0c", Reject}, {"nbsp", "\xa05", Reject}, {"arabic", "\xd9\xa5", Reject},
		{"wraps-32", "4294967301", Either}, {"wraps-64", "18446744073709551621", Reject}, {"above-63", "9223372036854775813", Reject}, {"enormous", strings.Repeat("9", 300), Reject},
		{"cr", "5\r", Reject}, {"semicolon", "5;a=b", Reject}, {"fold", "\r\n 5", Reject}, {"fold-after", "5\r\n ", Reject}, {"fold-digits", "5\r\n 0", Reject},
	}
	cases := each("cl", values, func(v string) string {
		return "POST /c/{id} HTTP/1.1\r\n" + head + "Content-Length: " + v + "\r\n\r\nhello"
	})
	lines := []variant{
		{"twice-same", "Content-Length: 5\r\nContent-Length: 5", Either}, {"twice-differs", "Content-Length: 5\r\nContent-Length: 49", Reject},
		{"twice-differs-back", "Content-Length: 49\r\nContent-Length: 5", Reject}, {"zero-first", "Content-Length: 0\r\nContent-Length: 5", Reject},
		{"space-before-colon", "Content-Length : 5", Reject}, {"tab-before-colon", "Content-Length\t: 5", Reject}, {"leading-space", " Content-Length: 5", Reject},
		{"underscore", "Content_Length: 5", Either}, {"behind-lf", "X-A: b\nContent-Length: 5", Reject}, {"behind-cr", "X-A: b\rContent-Length: 5", Reject},
		{"nul-in-name", "Content-Length\x00: 5", Reject}, {"no-space", "Content-Length:5", Forward}, {"spaces", "Content-Length: \t 5 \t", Forward},
		{"case", "CONTENT-LENGTH: 5", Forward}, {"comma-behind-zero", "Content-Length: 0, 5", Reject}, {"twice-one-odd", "Content-Length: 5\r\nContent-Length : 0", Reject},
		{"twice-one-plus", "Content-Length: 5\r\nContent-Length: +5", Reject}, {"dropped-by-connection", "Connection: Content-Length\r\nContent-Length: 5", Either},
	}
	cases = append(cases, each("cl-line", lines, func(l string) string {
		return "POST /c/{id} HTTP/1.1\r\n" + head + l + "\r\n\r\nhello"
	})...)
	hides := []variant{
		{"zero-then-request", "Content-Length: 0\r\nContent-Length: N", Reject}, {"request-then-zero", "Content-Length: N\r\nContent-Length: 0", Reject},
		{"list", "Content-Length: 0, N", Reject}, {"plus", "Content-Length: +N", Reject}, {"odd-name", "Content-Length : N", Reject}, {"right", "Content-Length: N", Forward},
		{"odd-name-then-zero", "Content-Length : N\r\nContent-Length: 0", Reject}, {"fold", "Content-Length:\r\n N", Reject}, {"vt", "Content-Length: \x0bN", Reject},
	}
	return append(cases, each("cl-hides", hides, func(l string) string {
		return "POST /c/{id} HTTP/1.1\r\n" + head + strings.ReplaceAll(l, "N", fmt.Sprint(size(hidden))) + "\r\n\r\n" + hidden
	})...)
}
