package smuggle

import (
	"fmt"
	"strings"
)

// connections: fields that say what of a message is for one hop only.
func connections() []Case {
	n := size(hidden)
	length := fmt.Sprintf("Content-Length: %d\r\n", n)
	return each("connection", []variant{
		{"drops-length", "Connection: content-length\r\n" + length, Either}, {"drops-host", "Connection: host, keep-alive\r\n" + length, Either}, {"drops-stamp", "Connection: x-stamp\r\n" + length, Forward}, {"close-drops-stamp", "Connection: close, x-stamp, x-route\r\n" + length, Either},
		{"odd", "Connection: keep-alive, close\r\n" + length, Either}, {"empty", "Connection:\r\n" + length, Either}, {"commas", "Connection: ,,,\r\n" + length, Either}, {"two-lines", "Connection: x-a\r\nConnection: x-stamp\r\n" + length, Either}, {"space-name", "Connection: x stamp\r\n" + length, Either},
		{"keep-alive", "Keep-Alive: timeout=1\r\n" + length, Forward}, {"proxy-connection", "Proxy-Connection: keep-alive\r\n" + length, Forward}, {"te", "TE: trailers\r\nConnection: TE\r\n" + length, Forward}, {"te-chunked", "TE: chunked\r\n" + length, Either}, {"te-without-connection", "TE: trailers\r\n" + length, Either},
		{"upgrade-h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n" + length, Either}, {"upgrade-websocket", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" + length, Either},
		{"upgrade-bad-version", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" + length, Either}, {"upgrade-without-connection", "Upgrade: websocket\r\n" + length, Either}, {"upgrade-list", "Connection: Upgrade\r\nUpgrade: a, b/1\r\n" + length, Either},
		{"expect", "Expect: 100-continue\r\n" + length, Forward}, {"expect-case", "Expect: 100-Continue\r\n" + length, Either}, {"expect-other", "Expect: 200-ok\r\n" + length, Either}, {"expect-two", "Expect: 100-continue\r\nExpect: 100-continue\r\n" + length, Either}, {"expect-list", "Expect: 100-continue, x\r\n" + length, Either}, {"expect-odd", "Expect: y 100-continue\r\n" + length, Either},
		{"expect-zero", "Expect: 100-continue\r\nContent-Length: 0\r\n", Either}, {"encoding", "Content-Encoding: chunked\r\n" + length, Either}, {"max-forwards", "Max-Forwards: 0\r\n" + length, Either}, {"override", "X-HTTP-Method-Override: GET\r\n" + length, Forward},
	}, func(f string) string { return "POST /c/{id} HTTP/1.1\r\n" + head + f + "\r\n" + hidden })
}

// bodies: where people expect none, pipelines, and bodies cut off.
func bodies() []Case {
	n := size(hidden)
	var cases []Case
	for _, m := range []string{"GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "PUT", "PATCH", "POST", "PROPFIND", "CUSTOM", "CONNECT"} {
		want := Either
		if m == "PUT" || m == "PATCH" || m == "POST" {
			want = Forward
		}
		cases = append(cases,
			Case{"body/" + m + "-length", fmt.Sprintf("%s /c/{id} HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s", m, head, n, hidden), want},
			Case{"body/" + m + "-chunked", fmt.Sprintf("%s /c/{id} HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", m, head, n, hidden), want},
			Case{"body/" + m + "-none", fmt.Sprintf("%s /c/{id} HTTP/1.1\r\n%s\r\n%s", m, head, strings.ReplaceAll(hidden, "/s/", "/c/")), Either},
		)
	}
	get := "GET /c/{id} HTTP/1.1\r\n" + head + "\r\n"
	post := "POST /c/{id} HTTP/1.1\r\n" + head + "Content-Length: 5\r\n\r\nhello"
	return append(cases, whole([]variant{
		{"two-gets", get + get, Forward}, {"ten-gets", strings.Repeat(get, 10), Forward}, {"post-get", post + get, Forward}, {"get-post-get", get + post + get, Forward}, {"crlf-between", post + "\r\n" + get, Either}, {"two-crlf-between", post + "\r\n\r\n" + get, Either}, {"lf-between", post + "\n" + get, Either},
		{"garbage-between", post + "xx" + get, Either}, {"close-then-get", "GET /c/{id} HTTP/1.1\r\n" + head + "Connection: close\r\n\r\n" + hidden, Either}, {"head-then-get", "HEAD /c/{id} HTTP/1.1\r\n" + head + "\r\n" + get, Forward}, {"bad-second", get + "GET /c/{id} HTTP/1.1\r\nHost : a.test\r\n\r\n" + hidden, Either},
		{"body-cut", "POST /c/{id} HTTP/1.1\r\n" + head + "Content-Length: 50\r\n\r\nhello", Either}, {"head-cut", "GET /c/{id} HTTP/1.1\r\n" + head, Either}, {"expect-then-get", "POST /c/{id} HTTP/1.1\r\n" + head + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello" + get, Forward},
		{"early-answer", fmt.Sprintf("POST /nowhere/{id} HTTP/1.1\r\nHost: none.test\r\nContent-Length: %d\r\n\r\n", n) + hidden, Either}, {"preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Either}, {"preface-after", get + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Either}, {"proxy-line", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n" + get, Reject}, {"tls-hello", "\x16\x03\x01\x00\x05hello" + get, Reject},
	}, "pipeline")...)
}

// targets: paths that a back end may read otherwise than the proxy's routes.
func targets() []Case {
	return each("target", []variant{
		{"admin", "/admin/{id}", Forward}, {"admin-exact", "/admin", Forward}, {"admin-query", "/admin?{id}", Forward}, {"adminx", "/adminx/{id}", Forward}, {"two-slashes", "//admin/{id}", Either}, {"slashes-inside", "/x//../admin/{id}", Either}, {"dot", "/./admin/{id}", Either}, {"dotdot", "/x/../admin/{id}", Either}, {"dotdot-out", "/admin/../c/{id}", Either}, {"dotdot-above", "/../admin/{id}", Either},
		{"percent-a", "/%61dmin/{id}", Either}, {"percent-slash", "/x%2f..%2fadmin/{id}", Either}, {"percent-dot", "/x/%2e%2e/admin/{id}", Either}, {"percent-dot-mixed", "/x/.%2E/admin/{id}", Either}, {"percent-twice", "/%2561dmin/{id}", Either}, {"percent-first-slash", "/%2fadmin/{id}", Either}, {"upper", "/ADMIN/{id}", Either}, {"semicolon", "/admin;x=y/{id}", Either}, {"semicolon-dotdot", "/x/..;/admin/{id}", Either}, {"backslash", "/x\\..\\admin/{id}", Either}, {"backslash-first", "/\\admin/{id}", Either},
		{"trailing-dot", "/admin./{id}", Either}, {"trailing-space", "/admin%20/{id}", Either}, {"nul", "/admin%00/{id}", Either}, {"tab", "/%09admin/{id}", Either}, {"overlong", "/%c0%afadmin/{id}", Either}, {"wide", "/\xef\xbc\x8fadmin/{id}", Either}, {"percent-u", "/%u0061dmin/{id}", Either}, {"query-slash", "/x?/../admin/{id}", Forward}, {"fragment", "/x#/../admin/{id}", Reject}, {"absolute-dotdot", "http://a.test/x/../admin/{id}", Either}, {"absolute-admin", "http://a.test/admin/{id}", Forward}, {"absolute-b", "http://b.test/admin/{id}", Either}, {"percent-query", "/admin%3f/{id}", Either},
	}, func(t string) string { return "GET " + t + " HTTP/1.1\r\n" + head + "\r\n" })
}
