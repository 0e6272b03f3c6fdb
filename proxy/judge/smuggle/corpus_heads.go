package smuggle

import (
	"fmt"
	"strings"
)

func requestLines() []Case {
	return each("request-line", []variant{
		{"plain", "GET /c/{id} HTTP/1.1", Forward}, {"two-spaces", "GET  /c/{id} HTTP/1.1", Reject}, {"two-spaces-version", "GET /c/{id}  HTTP/1.1", Reject}, {"tab", "GET\t/c/{id}\tHTTP/1.1", Reject},
		{"tab-version", "GET /c/{id}\tHTTP/1.1", Reject}, {"trailing-space", "GET /c/{id} HTTP/1.1 ", Reject}, {"leading-space", " GET /c/{id} HTTP/1.1", Reject}, {"vt", "GET\x0b/c/{id} HTTP/1.1", Reject}, {"ff", "GET /c/{id}\x0cHTTP/1.1", Reject},
		{"nul-in-target", "GET /c/{id}\x00 HTTP/1.1", Reject}, {"cr-in-target", "GET /c/{id}\r HTTP/1.1", Reject}, {"space-in-target", "GET /c/{id} x HTTP/1.1", Reject}, {"no-target", "GET HTTP/1.1", Reject}, {"empty-target", "GET  HTTP/1.1", Reject},
		{"no-slash", "GET c/{id} HTTP/1.1", Reject}, {"del", "GET /c/{id}\x7f HTTP/1.1", Reject}, {"control", "GET /c/{id}\x01 HTTP/1.1", Reject}, {"latin", "GET /c/{id}\xe9 HTTP/1.1", Either}, {"utf8", "GET /c/{id}\xc3\xa9 HTTP/1.1", Either},
		{"fragment", "GET /c/{id}#x HTTP/1.1", Reject}, {"backslash", "GET \\c\\{id} HTTP/1.1", Reject}, {"braces", "GET /c/{id}{} HTTP/1.1", Either}, {"quote", "GET /c/{id}\" HTTP/1.1", Either}, {"angle", "GET /c/{id}<> HTTP/1.1", Either},
		{"request-in-target", "GET /c/{id}\r\nHost: a.test\r\n\r\nGET /s/{id} HTTP/1.1", Reject},
		{"method-lower", "get /c/{id} HTTP/1.1", Either}, {"method-odd", "M-SEARCH /c/{id} HTTP/1.1", Either}, {"method-slash", "GE/T /c/{id} HTTP/1.1", Reject}, {"method-nul", "GET\x00 /c/{id} HTTP/1.1", Reject}, {"method-colon", "GET: /c/{id} HTTP/1.1", Reject},
		{"method-latin", "G\xcbT /c/{id} HTTP/1.1", Reject}, {"method-at", "@ /c/{id} HTTP/1.1", Reject}, {"method-long", strings.Repeat("M", 300) + " /c/{id} HTTP/1.1", Either}, {"pri", "PRI /c/{id} HTTP/1.1", Either}, {"pri-star", "PRI * HTTP/2.0", Either},
		{"absolute", "GET http://a.test/c/{id} HTTP/1.1", Forward}, {"absolute-upper", "GET HTTP://a.test/c/{id} HTTP/1.1", Either}, {"absolute-other-host", "GET http://b.test/c/{id} HTTP/1.1", Either}, {"absolute-unknown-host", "GET http://evil.test/c/{id} HTTP/1.1", Either},
		{"absolute-https", "GET https://a.test/c/{id} HTTP/1.1", Either}, {"absolute-userinfo", "GET http://b.test@a.test/c/{id} HTTP/1.1", Reject}, {"absolute-userinfo-path", "GET http://a.test/@b.test/c/{id} HTTP/1.1", Either}, {"absolute-no-host", "GET http:///c/{id} HTTP/1.1", Reject},
		{"absolute-no-path", "GET http://a.test HTTP/1.1", Either}, {"absolute-query", "GET http://a.test?/c/{id} HTTP/1.1", Either}, {"absolute-port", "GET http://a.test:80/c/{id} HTTP/1.1", Either}, {"absolute-bad-port", "GET http://a.test:x/c/{id} HTTP/1.1", Reject}, {"absolute-backslash", "GET http://a.test\\@b.test/c/{id} HTTP/1.1", Reject},
		{"absolute-scheme", "GET file:///c/{id} HTTP/1.1", Reject}, {"absolute-opaque", "GET http:a.test/c/{id} HTTP/1.1", Reject}, {"absolute-one-slash", "GET http:/a.test/c/{id} HTTP/1.1", Reject}, {"scheme-relative", "GET //b.test/c/{id} HTTP/1.1", Either}, {"absolute-space", "GET http://a.test /c/{id} HTTP/1.1", Reject},
		{"authority", "GET a.test:80 HTTP/1.1", Reject}, {"star", "GET * HTTP/1.1", Reject}, {"options-star", "OPTIONS * HTTP/1.1", Either}, {"connect", "CONNECT a.test:80 HTTP/1.1", Either}, {"connect-path", "CONNECT /c/{id} HTTP/1.1", Either}, {"connect-no-port", "CONNECT a.test HTTP/1.1", Either}, {"trace", "TRACE /c/{id} HTTP/1.1", Either},
		{"empty-line-before", "\r\nGET /c/{id} HTTP/1.1", Either}, {"two-empty-lines-before", "\r\n\r\nGET /c/{id} HTTP/1.1", Either}, {"lf-before", "\nGET /c/{id} HTTP/1.1", Either}, {"cr-before", "\rGET /c/{id} HTTP/1.1", Reject}, {"nul-before", "\x00GET /c/{id} HTTP/1.1", Reject}, {"bom", "\xef\xbb\xbfGET /c/{id} HTTP/1.1", Reject},
		{"long-target", "GET /c/{id}?" + strings.Repeat("q", 90000) + " HTTP/1.1", Either}, {"percent-bad", "GET /c/{id}%zz HTTP/1.1", Either}, {"percent-cut", "GET /c/{id}% HTTP/1.1", Either}, {"percent-crlf", "GET /c/{id}%0d%0aX:%20y HTTP/1.1", Either}, {"percent-nul", "GET /c/{id}%00 HTTP/1.1", Either},
	}, func(l string) string { return l + "\r\n" + head + "\r\n" })
}

func versions() []Case {
	cases := each("version", []variant{
		{"1.0", "HTTP/1.0", Either}, {"1.2", "HTTP/1.2", Either}, {"1.9", "HTTP/1.9", Either}, {"0.9", "HTTP/0.9", Reject}, {"2.0", "HTTP/2.0", Reject}, {"2", "HTTP/2", Reject}, {"3", "HTTP/3.0", Reject}, {"1", "HTTP/1", Reject}, {"1.", "HTTP/1.", Reject}, {".1", "HTTP/.1", Reject},
		{"1.10", "HTTP/1.10", Reject}, {"01.1", "HTTP/01.1", Reject}, {"1.01", "HTTP/1.01", Reject}, {"lower", "http/1.1", Reject}, {"mixed", "Http/1.1", Reject}, {"word", "HTTQ/1.1", Reject}, {"space", "HTTP /1.1", Reject}, {"space-number", "HTTP/ 1.1", Reject}, {"comma", "HTTP/1,1", Reject},
		{"1.1x", "HTTP/1.1x", Reject}, {"minus", "HTTP/-1.1", Reject}, {"plus", "HTTP/+1.1", Reject}, {"hex", "HTTP/1.a", Reject}, {"icy", "ICY/1.1", Reject}, {"rtsp", "RTSP/1.0", Reject}, {"nul", "HTTP/1.1\x00", Reject}, {"wraps", "HTTP/4294967297.1", Reject},
	}, func(v string) string { return "GET /c/{id} " + v + "\r\n" + head + "\r\n" })
	n := size(hidden)
	return append(cases, whole([]variant{
		{"simple", "GET /c/{id}\r\n", Either}, {"simple-lf", "GET /c/{id}\n", Either}, {"simple-fields", "GET /c/{id}\r\n" + head + "\r\n", Reject},
		{"1.0-no-host", "GET /c/{id} HTTP/1.0\r\n\r\n", Either}, {"1.0-keep-alive", "GET /c/{id} HTTP/1.0\r\n" + head + "Connection: keep-alive\r\n\r\n", Either},
		{"1.0-chunked", "POST /c/{id} HTTP/1.0\r\n" + head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Reject},
		{"1.0-chunked-keep-alive", "POST /c/{id} HTTP/1.0\r\n" + head + "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, Reject},
		{"1.0-chunked-length", "POST /c/{id} HTTP/1.0\r\n" + head + fmt.Sprintf("Connection: keep-alive\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", n+5) + hidden, Reject},
		{"1.0-length", "POST /c/{id} HTTP/1.0\r\n" + head + "Content-Length: 5\r\n\r\nhello", Either},
		{"1.0-pipelined", "GET /c/{id} HTTP/1.0\r\n" + head + "\r\n" + hidden, Either},
		{"1.0-no-length", "POST /c/{id} HTTP/1.0\r\n" + head + "\r\n" + hidden, Either},
		{"1.0-expect", "POST /c/{id} HTTP/1.0\r\n" + head + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", Either},
	}, "old")...)
}

func hosts() []Case {
	cases := each("host", []variant{
		{"plain", "a.test", Forward}, {"port", "a.test:80", Forward}, {"upper", "A.TEST", Forward}, {"dot", "a.test.", Either}, {"empty-port", "a.test:", Either}, {"bad-port", "a.test:x", Reject}, {"huge-port", "a.test:99999", Reject}, {"two-ports", "a.test:80:80", Reject}, {"signed-port", "a.test:+80", Reject}, {"negative-port", "a.test:-1", Reject},
		{"empty", "", Either}, {"space", "a.test b.test", Reject}, {"comma", "a.test, b.test", Reject}, {"comma-tight", "a.test,b.test", Reject}, {"userinfo", "b.test@a.test", Reject}, {"path", "a.test/b", Reject}, {"query", "a.test?b", Reject}, {"fragment", "a.test#b.test", Reject}, {"backslash", "a.test\\b", Reject}, {"scheme", "http://a.test", Reject},
		{"nul", "a.test\x00", Reject}, {"nul-inside", "a.test\x00b.test", Reject}, {"tab", "a.test\tb", Reject}, {"latin", "\xe4.test", Reject}, {"utf8", "\xc3\xa4.test", Reject}, {"percent", "%61.test", Either}, {"two-dots", "a..test", Either}, {"leading-dot", ".a.test", Either}, {"under-score", "a_b.test", Either}, {"star", "*.test", Either},
		{"ipv4", "127.0.0.1", Either}, {"ipv6", "[::1]", Either}, {"ipv6-port", "[::1]:80", Either}, {"ipv6-open", "[::1", Reject}, {"ipv6-bare", "::1", Reject}, {"ipv6-tail", "[::1]a.test", Reject}, {"ipv6-zone", "[fe80::1%25eth0]", Either}, {"ipv6-word", "[a.test]", Reject}, {"long", strings.Repeat("a", 5000) + ".test", Either}, {"semicolon", "a.test;b", Either}, {"quote", "\"a.test\"", Reject}, {"angle", "<a.test>", Reject},
	}, func(h string) string { return "GET /c/{id} HTTP/1.1\r\nHost: " + h + "\r\n\r\n" })
	return append(cases, each("host-line", []variant{
		{"missing", "X-A: b", Reject}, {"twice-same", "Host: a.test\r\nHost: a.test", Reject}, {"twice-differs", "Host: a.test\r\nHost: b.test", Reject}, {"twice-apart", "Host: a.test\r\nX-A: b\r\nHost: b.test", Reject}, {"twice-case", "Host: a.test\r\nhost: b.test", Reject}, {"twice-empty", "Host:\r\nHost: a.test", Reject},
		{"space-before-colon", "Host : a.test", Reject}, {"leading-space", " Host: a.test", Reject}, {"second-odd", "Host: a.test\r\nHost : b.test", Reject}, {"second-folded", "Host: a.test\r\n Host: b.test", Reject}, {"second-lf", "Host: a.test\nHost: b.test", Reject}, {"second-cr", "Host: a.test\rHost: b.test", Reject}, {"nul-name", "Host\x00: b.test\r\nHost: a.test", Reject},
		{"underscore", "H_ost: b.test\r\nHost: a.test", Either}, {"forwarded", "Host: a.test\r\nX-Forwarded-Host: b.test", Forward}, {"dropped-by-connection", "Host: a.test\r\nConnection: host", Either}, {"authority-name", "Host: a.test\r\n:authority: b.test", Reject},
	}, func(h string) string { return "GET /c/{id} HTTP/1.1\r\n" + h + "\r\n\r\n" })...)
}

func names() []Case {
	var cases []Case
	for c := range 256 {
		token := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("!#$%&'*+-.^_`|~", byte(c)) >= 0
		if token && c != '_' && c != '.' && c != '\'' && c != '|' || c == '\n' || c > 0x80 && c%16 != 0 {
			continue // one in sixteen above ASCII is enough
		}
		want := Reject
		if token {
			want = Either
		}
		if c != ':' { // X: A is another name
			cases = append(cases, Case{fmt.Sprintf("name-byte/%02x", c), "GET /c/{id} HTTP/1.1\r\n" + head + "X" + string([]byte{byte(c)}) + "A: b\r\n\r\n", want})
		}
		if (c < ' ' || c >= 0x7f) && c != '\t' {
			want := Reject
			if c >= 0x80 {
				want = Either // obs-text
			}
			cases = append(cases, Case{fmt.Sprintf("value-byte/%02x", c), "GET /c/{id} HTTP/1.1\r\n" + head + "X-A: b" + string([]byte{byte(c)}) + "c\r\n\r\n", want})
		}
	}
	return append(cases, each("field", []variant{
		{"no-colon", "X-A", Reject}, {"empty-name", ": b", Reject}, {"empty-value", "X-A:", Forward}, {"only-colon", ":", Reject}, {"space-name", "X A: b", Reject}, {"request", "GET /s/{id} HTTP/1.1", Reject}, {"long-name", strings.Repeat("N", 70000) + ": b", Either}, {"long-value", "X-A: " + strings.Repeat("v", 70000), Either}, {"many", strings.TrimSuffix(strings.Repeat("X-A: b\r\n", 2000), "\r\n"), Either},
		{"stamp", "X-Stamp: forged", Either}, {"stamp-underscore", "X_Stamp: forged", Either}, {"stamp-space", "X-Stamp : forged", Reject}, {"stamp-case", "x-STAMP: forged", Either}, {"stamp-twice", "X-Stamp: forged\r\nX-Stamp: again", Either}, {"route", "X-Route: admin", Either}, {"stamp-fold", "X-A: b\r\n X-Stamp: forged", Reject},
	}, func(f string) string { return "GET /c/{id} HTTP/1.1\r\n" + head + f + "\r\n\r\n" })...)
}
