package smuggle

import (
	"fmt"
	"strings"
)

// Field is one field of HTTP/2, bytes as they stand.
type Field struct{ Name, Value string }

// Stream is what a client sends on one stream of HTTP/2.
type Stream struct {
	Fields   []Field
	Body     string
	Trailers []Field
	// OpenTrailers lack END_STREAM.
	OpenTrailers bool
}

// Case2 is one Case of HTTP/2, to be put into HTTP/1 by the proxy.
type Case2 struct {
	Case
	Stream Stream
}

func request(method string, more ...Field) []Field {
	return append([]Field{{":method", method}, {":scheme", "http"}, {":authority", "a.test"}, {":path", "/c/{id}"}}, more...)
}

// with is request with one pseudo field in another form.
func with(method, name, value string, more ...Field) []Field {
	fs := request(method, more...)
	for i := range fs {
		if fs[i].Name == name {
			fs[i].Value = value
		}
	}
	return fs
}

// without leaves a pseudo field out.
func without(name string, more ...Field) []Field {
	var out []Field
	for _, f := range request("GET", more...) {
		if f.Name != name {
			out = append(out, f)
		}
	}
	return out
}

// Corpus2 is the whole table for HTTP/2.
func Corpus2() []Case2 {
	all := append(lengths2(), fields2()...)
	all = append(all, pseudo2()...)
	all = append(all, trailers2()...)
	for _, c := range targets() {
		t := strings.TrimPrefix(strings.SplitN(c.Raw, " HTTP/1.1", 2)[0], "GET ")
		if strings.HasPrefix(t, "http") {
			c.Want = Reject // no absolute form in HTTP/2
		}
		all = append(all, Case2{Case{"h2-" + c.Name, "", c.Want}, Stream{Fields: with("GET", ":path", t)}})
	}
	return all
}

func lengths2() []Case2 {
	n := fmt.Sprint(size(hidden))
	one := func(name, length, body string, want Want) Case2 {
		return Case2{Case{"h2-body/" + name, "", want}, Stream{Fields: request("POST", Field{"content-length", length}), Body: body}}
	}
	chunked := "0\r\n\r\n" + hidden
	return []Case2{
		one("right", "5", "hello", Forward), one("hidden", n, hidden, Forward), one("too-small", "2", "hello", Reject), one("zero", "0", hidden, Reject), one("too-large", "50", "hello", Reject), one("plus", "+5", "hello", Reject), one("list", "5, 5", "hello", Either), one("list-differs", "0, 5", "hello", Reject), one("empty", "", "hello", Reject), one("hex", "0x5", "hello", Reject), one("space", "5 5", "hello", Reject), one("minus", "-1", "hello", Reject), one("wraps", "18446744073709551621", "hello", Reject), one("crlf", "5\r\nx-a: b", "hello", Reject),
		{Case{"h2-body/twice", "", Either}, Stream{Fields: request("POST", Field{"content-length", "5"}, Field{"content-length", "5"}), Body: "hello"}},
		{Case{"h2-body/twice-differs", "", Reject}, Stream{Fields: request("POST", Field{"content-length", "5"}, Field{"content-length", "0"}), Body: "hello"}},
		{Case{"h2-body/none", "", Forward}, Stream{Fields: request("POST"), Body: hidden}},
		{Case{"h2-body/get", "", Either}, Stream{Fields: request("GET"), Body: hidden}},
		{Case{"h2-body/get-length", "", Either}, Stream{Fields: request("GET", Field{"content-length", n}), Body: hidden}},
		{Case{"h2-body/get-length-no-body", "", Reject}, Stream{Fields: request("GET", Field{"content-length", "5"})}},
		{Case{"h2-body/head", "", Either}, Stream{Fields: request("HEAD"), Body: hidden}},
		{Case{"h2-body/delete", "", Either}, Stream{Fields: request("DELETE"), Body: hidden}},
		{Case{"h2-body/post-empty", "", Forward}, Stream{Fields: request("POST")}},
		{Case{"h2-body/chunked", "", Reject}, Stream{Fields: request("POST", Field{"transfer-encoding", "chunked"}), Body: chunked}},
		{Case{"h2-body/chunked-length", "", Reject}, Stream{Fields: request("POST", Field{"content-length", fmt.Sprint(size(chunked))}, Field{"transfer-encoding", "chunked"}), Body: chunked}},
		{Case{"h2-body/expect", "", Either}, Stream{Fields: request("POST", Field{"expect", "100-continue"}, Field{"content-length", "5"}), Body: "hello"}},
	}
}

func fields2() []Case2 {
	n := size(hidden)
	var all []Case2
	for _, f := range []struct {
		name  string
		field Field
		want  Want
	}{
		{"plain", Field{"x-a", "b"}, Forward}, {"empty-value", Field{"x-a", ""}, Forward}, {"te-identity", Field{"transfer-encoding", "identity"}, Reject}, {"te-upper-name", Field{"Transfer-Encoding", "chunked"}, Reject}, {"te-space-name", Field{"transfer-encoding ", "chunked"}, Reject}, {"te-tab-name", Field{"transfer-encoding\t", "chunked"}, Reject}, {"te-nul-name", Field{"transfer-encoding\x00", "chunked"}, Reject}, {"te-vt-name", Field{"\x0btransfer-encoding", "chunked"}, Reject}, {"te-colon-name", Field{"transfer-encoding:", "chunked"}, Reject}, {"te-colon-chunked", Field{"transfer-encoding:chunked", ""}, Reject},
		{"trailers", Field{"te", "trailers"}, Forward}, {"te-gzip", Field{"te", "gzip"}, Reject}, {"te-both", Field{"te", "trailers, chunked"}, Reject}, {"connection", Field{"connection", "keep-alive"}, Reject}, {"connection-close", Field{"connection", "close"}, Reject}, {"connection-stamp", Field{"connection", "x-stamp"}, Reject}, {"keep-alive", Field{"keep-alive", "timeout=5"}, Reject}, {"proxy-connection", Field{"proxy-connection", "keep-alive"}, Reject}, {"upgrade", Field{"upgrade", "h2c"}, Reject}, {"upgrade-websocket", Field{"upgrade", "websocket"}, Reject}, {"settings", Field{"http2-settings", "AAMAAABk"}, Either},
		{"crlf-field", Field{"x-a", "b\r\nx-b: c"}, Reject}, {"crlf-te", Field{"x-a", "b\r\ntransfer-encoding: chunked"}, Reject}, {"crlf-request", Field{"x-a", "b\r\n\r\n" + hidden}, Reject}, {"lf", Field{"x-a", "b\nc"}, Reject}, {"cr", Field{"x-a", "b\rc"}, Reject}, {"nul", Field{"x-a", "b\x00c"}, Reject}, {"lf-te", Field{"x-a", "b\ntransfer-encoding: chunked"}, Reject}, {"leading-space", Field{"x-a", " b"}, Either}, {"trailing-space", Field{"x-a", "b "}, Either}, {"trailing-crlf", Field{"x-a", "b\r\n"}, Reject}, {"control", Field{"x-a", "b\x01"}, Either}, {"latin", Field{"x-a", "\xe9"}, Either},
		{"name-crlf", Field{"x-a: b\r\nx-b", "c"}, Reject}, {"name-crlf-te", Field{"x-a: b\r\ntransfer-encoding", "chunked"}, Reject}, {"name-colon", Field{"x-a:b", "c"}, Reject}, {"name-colon-first", Field{":x", "c"}, Reject}, {"name-space", Field{"x a", "b"}, Reject}, {"name-upper", Field{"X-A", "b"}, Reject}, {"name-empty", Field{"", "b"}, Reject}, {"name-lf", Field{"x\na", "b"}, Reject}, {"name-nul", Field{"x\x00a", "b"}, Reject}, {"name-latin", Field{"x\xe9", "b"}, Reject}, {"name-slash", Field{"x/a", "b"}, Reject}, {"name-quote", Field{"x\"a", "b"}, Reject}, {"name-del", Field{"x\x7f", "b"}, Reject}, {"name-under", Field{"x_a", "b"}, Either},
		{"host-same", Field{"host", "a.test"}, Either}, {"host-other", Field{"host", "b.test"}, Reject}, {"host-upper-name", Field{"Host", "b.test"}, Reject}, {"host-crlf", Field{"host", "a.test\r\nx: y"}, Reject}, {"stamp", Field{"x-stamp", "forged"}, Either}, {"stamp-upper", Field{"X-Stamp", "forged"}, Reject}, {"stamp-under", Field{"x_stamp", "forged"}, Either}, {"length-under", Field{"content_length", "0"}, Either}, {"length-space", Field{"content-length ", "0"}, Reject}, {"long-value", Field{"x-a", strings.Repeat("v", 70000)}, Either}, {"cookie-crlf", Field{"cookie", "a=1\r\nx: y"}, Reject}, {"forwarded-host", Field{"x-forwarded-host", "b.test"}, Forward},
	} {
		all = append(all, Case2{Case{"h2-field/" + f.name, "", f.want}, Stream{Fields: request("POST", f.field, Field{"content-length", fmt.Sprint(n)}), Body: hidden}})
	}
	var crumbs []Field
	for i := range 1500 {
		crumbs = append(crumbs, Field{"cookie", fmt.Sprintf("c%d=1", i)})
	}
	return append(all,
		Case2{Case{"h2-field/cookie-crumbs", "", Forward}, Stream{Fields: request("GET", crumbs[:5]...)}},
		Case2{Case{"h2-field/cookie-crumbs-many", "", Either}, Stream{Fields: request("GET", crumbs...)}},
		Case2{Case{"h2-field/two-hosts", "", Reject}, Stream{Fields: without(":authority", Field{"host", "a.test"}, Field{"host", "b.test"})}},
	)
}

func pseudo2() []Case2 {
	var all []Case2
	add := func(name string, want Want, fields []Field) {
		all = append(all, Case2{Case{"h2-pseudo/" + name, "", want}, Stream{Fields: fields}})
	}
	inject := " HTTP/1.1\r\nHost: a.test\r\n\r\nGET /s/{id}"
	for _, v := range []variant{
		{"crlf", "GET /s/{id} HTTP/1.1\r\nHost: a.test\r\n\r\nGET", Reject}, {"space", "GET /s/{id} HTTP/1.1\r\nX: ", Reject}, {"space-only", "GET /x", Reject}, {"empty", "", Reject}, {"lower", "get", Either}, {"nul", "GET\x00", Reject}, {"lf", "GET\n", Reject}, {"inner-space", "G ET", Reject}, {"latin", "G\xcbT", Reject}, {"colon", "GET:", Reject}, {"connect-path", "CONNECT", Reject}, {"odd", "M-SEARCH", Either}, {"trace", "TRACE", Either}, {"pri", "PRI", Either}, {"trailing-space", "GET ", Reject},
	} {
		add("method-"+v.name, v.want, with("GET", ":method", v.text))
	}
	for _, v := range []variant{
		{"crlf", "/c/{id}" + inject, Reject}, {"space", "/c/{id} HTTP/1.1", Reject}, {"space-x", "/c/{id} x", Reject}, {"lf", "/c/{id}\nx: y", Reject}, {"cr", "/c/{id}\rx", Reject}, {"nul", "/c/{id}\x00", Reject}, {"tab", "/c/{id}\tx", Reject}, {"fragment", "/c/{id}#x", Reject}, {"no-slash", "c/{id}", Reject}, {"empty", "", Reject}, {"star", "*", Reject}, {"authority", "a.test:80", Reject}, {"scheme-relative", "//b.test/c/{id}", Either}, {"leading-space", " /c/{id}", Reject}, {"trailing-space", "/c/{id} ", Reject}, {"del", "/c/{id}\x7f", Reject}, {"latin", "/c/{id}\xe9", Either}, {"question", "?c/{id}", Reject}, {"backslash", "\\c\\{id}", Reject}, {"long", "/c/{id}?" + strings.Repeat("q", 90000), Either},
	} {
		add("path-"+v.name, v.want, with("GET", ":path", v.text))
	}
	for _, v := range []variant{
		{"https", "https", Either}, {"empty", "", Reject}, {"crlf", "http\r\nx: y", Reject}, {"other", "ftp", Either}, {"url", "http://b.test/s/{id}?", Reject}, {"upper", "HTTP", Either}, {"space", "http ", Reject}, {"nul", "http\x00", Reject},
	} {
		add("scheme-"+v.name, v.want, with("GET", ":scheme", v.text))
	}
	for _, v := range []variant{
		{"crlf", "a.test\r\nx: y", Reject}, {"crlf-host", "a.test\r\nHost: b.test", Reject}, {"space", "a.test b.test", Reject}, {"userinfo", "b.test@a.test", Reject}, {"path", "a.test/b", Reject}, {"fragment", "a.test#b", Reject}, {"query", "a.test?b", Reject}, {"bad-port", "a.test:x", Reject}, {"port", "a.test:80", Forward}, {"upper", "A.TEST", Forward}, {"empty", "", Reject}, {"comma", "a.test,b.test", Reject}, {"nul", "a.test\x00b.test", Reject}, {"tab", "a.test\tb", Reject}, {"backslash", "a.test\\b.test", Reject}, {"dot", "a.test.", Either}, {"latin", "\xe4.test", Reject}, {"two-ports", "a.test:80:80", Reject},
	} {
		add("authority-"+v.name, v.want, with("GET", ":authority", v.text))
	}
	for _, name := range []string{":method", ":scheme", ":path", ":authority"} {
		value := map[string]string{":method": "POST", ":scheme": "https", ":path": "/s/{id}", ":authority": "b.test"}[name]
		add("twice"+name, Reject, append(request("GET"), Field{name, value}))
		add("first-twice"+name, Reject, append([]Field{{name, value}}, request("GET")...))
		add("after-fields"+name, Reject, append(without(name, Field{"x-a", "b"}), Field{name, value}))
		if name != ":authority" {
			add("missing"+name, Reject, without(name))
		}
	}
	add("no-host", Reject, without(":authority"))
	add("host-only", Either, without(":authority", Field{"host", "a.test"}))
	add("unknown", Reject, append([]Field{{":foo", "bar"}}, request("GET")...))
	add("status", Reject, append([]Field{{":status", "200"}}, request("GET")...))
	add("protocol-get", Reject, append([]Field{{":protocol", "websocket"}}, request("GET")...))
	add("protocol-crlf", Reject, append([]Field{{":protocol", "websocket\r\nx: y"}}, request("CONNECT")...))
	add("protocol-unknown", Either, append([]Field{{":protocol", "made-up"}}, request("CONNECT")...))
	add("connect", Either, []Field{{":method", "CONNECT"}, {":authority", "a.test:80"}})
	add("upper", Reject, append([]Field{{":Method", "GET"}}, without(":method")...))
	return all
}

func trailers2() []Case2 {
	var all []Case2
	for _, f := range []struct {
		name  string
		field Field
		want  Want
	}{
		{"plain", Field{"x-t", "v"}, Forward}, {"length", Field{"content-length", "0"}, Either}, {"te", Field{"transfer-encoding", "chunked"}, Reject}, {"connection", Field{"connection", "close"}, Reject}, {"pseudo", Field{":path", "/s/{id}"}, Reject}, {"crlf", Field{"x-t", "v\r\nx-u: w"}, Reject}, {"crlf-request", Field{"x-t", "v\r\n\r\n" + hidden}, Reject}, {"name-crlf", Field{"x-t: v\r\n\r\nGET /s/{id} HTTP/1.1\r\nx", "v"}, Reject}, {"stamp", Field{"x-stamp", "forged"}, Either}, {"host", Field{"host", "b.test"}, Either}, {"upper", Field{"X-T", "v"}, Reject}, {"nul", Field{"x-t", "\x00"}, Reject}, {"long", Field{"x-t", strings.Repeat("v", 70000)}, Either},
	} {
		all = append(all, Case2{Case{"h2-body/trailer-" + f.name, "", f.want}, Stream{Fields: request("POST"), Body: "hello", Trailers: []Field{f.field}}})
	}
	return append(all, Case2{Case{"h2-body/trailer-open", "", Reject}, Stream{Fields: request("POST"), Body: "hello", Trailers: []Field{{"x-t", "v"}}, OpenTrailers: true}})
}
