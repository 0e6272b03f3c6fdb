package smuggle

import "strings"

// Answer is what a back end sends, byte by byte, to a request for its name.
type Answer struct {
	Name string
	Raw  string
	Want Want
	// Close the connection behind it; otherwise the back end keeps it open.
	Close bool
	// Method of the request; empty: GET.
	Method string
	// Body that the client must have, where Want is Forward.
	Body string
}

// Answers is the table of answers that a proxy has to read as strictly as
// requests: of an ambiguous one nothing must look whole to the client.
func Answers() []Answer {
	return append(append(answerHeads(), answerBodies()...), answerFollows()...)
}

const okHead = "HTTP/1.1 200 OK\r\n"

func answerHeads() []Answer {
	var all []Answer
	for _, v := range []variant{
		{"plain", okHead, Forward}, {"no-reason", "HTTP/1.1 200 \r\n", Forward}, {"no-space", "HTTP/1.1 200\r\n", Either}, {"odd-reason", "HTTP/1.1 200 Al\xc3\xb3\r\n", Either}, {"1.0", "HTTP/1.0 200 OK\r\n", Forward}, {"599", "HTTP/1.1 599 Odd\r\n", Forward}, {"600", "HTTP/1.1 600 Odd\r\n", Either}, {"099", "HTTP/1.1 099 Odd\r\n", Reject},
		{"2-digits", "HTTP/1.1 20 OK\r\n", Reject}, {"4-digits", "HTTP/1.1 2000 OK\r\n", Reject}, {"signed", "HTTP/1.1 +200 OK\r\n", Reject}, {"word", "HTTP/1.1 abc OK\r\n", Reject}, {"two-spaces", "HTTP/1.1  200 OK\r\n", Reject}, {"version-2", "HTTP/2.0 200 OK\r\n", Reject}, {"version-3", "HTTP/3 200 OK\r\n", Reject}, {"icy", "ICY 200 OK\r\n", Reject}, {"no-version", "200 OK\r\n", Reject},
		{"space-first", " HTTP/1.1 200 OK\r\n", Reject}, {"line-first", "\r\n" + okHead, Either}, {"lf", "HTTP/1.1 200 OK\n", Reject}, {"cr", "HTTP/1.1 200 OK\r", Reject}, {"nul", "HTTP/1.1 200 O\x00K\r\n", Reject}, {"garbage", "\x16\x03\x01\x02\x00", Reject}, {"cr-reason", "HTTP/1.1 200 O\rK\r\n", Reject}, {"101-unasked", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n", Reject},
	} {
		all = append(all, Answer{Name: "status-" + v.name, Raw: v.text + "Content-Length: 2\r\n\r\nok", Want: v.want, Body: "ok", Close: strings.Contains(v.text, "/1.0")})
	}
	for _, v := range []variant{
		{"plain", "X-A: b", Forward}, {"latin", "X-A: \xe9", Either}, {"no-colon", "X-A", Reject}, {"space-before-colon", "X-A : b", Reject}, {"empty-name", ": b", Reject}, {"nul", "X-A: b\x00c", Reject}, {"nul-name", "X\x00A: b", Reject}, {"cr", "X-A: b\rc", Reject}, {"lf", "X-A: b\nX-B: c", Reject}, {"fold", "X-A: b\r\n c", Either}, {"leading-space", " X-A: b", Reject}, {"space-name", "X A: b", Reject}, {"quote-name", "X\"A: b", Reject},
		{"length-twice-same", "Content-Length: 2", Either}, {"length-twice-differs", "Content-Length: 5", Reject}, {"length-odd", "Content-Length : 5", Reject}, {"te-beside-length", "Transfer-Encoding: chunked", Reject}, {"te-identity-beside-length", "Transfer-Encoding: identity", Reject}, {"te-odd-beside-length", "Transfer-Encoding: \x0bchunked", Reject}, {"te-odd-name-beside-length", "Transfer-Encoding : chunked", Reject}, {"te-fold-beside-length", "Transfer-Encoding:\r\n chunked", Reject}, {"long", "X-A: " + strings.Repeat("v", 30000), Either}, {"huge", "X-A: " + strings.Repeat("v", 2<<20), Either}, {"many", strings.TrimSuffix(strings.Repeat("X-A: b\r\n", 5000), "\r\n"), Either}, {"cookies", "Set-Cookie: a=1\r\nSet-Cookie: b=2", Forward},
	} {
		all = append(all, Answer{Name: "field-" + v.name, Raw: okHead + v.text + "\r\nContent-Length: 2\r\n\r\nok", Want: v.want, Body: "ok"})
	}
	return all
}

func answerBodies() []Answer {
	var all []Answer
	for _, v := range []variant{
		{"plus", "+2", Reject}, {"minus", "-2", Reject}, {"hex", "0x2", Reject}, {"list-same", "2, 2", Either}, {"list-differs", "2, 3", Reject}, {"empty", "", Reject}, {"word", "two", Reject}, {"wraps", "18446744073709551618", Reject}, {"nul", "2\x00", Reject}, {"leading-zero", "02", Either}, {"space", "2 2", Reject},
	} {
		all = append(all, Answer{Name: "length-" + v.name, Raw: okHead + "Content-Length: " + v.text + "\r\n\r\nok", Want: v.want, Body: "ok"})
	}
	chunked := okHead + "Transfer-Encoding: chunked\r\n\r\n"
	for _, v := range []variant{
		{"plain", "2\r\nok\r\n0\r\n\r\n", Forward}, {"extension", "2;a=b\r\nok\r\n0\r\n\r\n", Either}, {"trailers", "2\r\nok\r\n0\r\nX-T: v\r\n\r\n", Forward}, {"lf-size", "2\nok\r\n0\r\n\r\n", Reject}, {"lf-data", "2\r\nok\n0\r\n\r\n", Reject}, {"no-crlf", "2\r\nok0\r\n\r\n", Reject}, {"word", "x\r\nok\r\n0\r\n\r\n", Reject}, {"plus", "+2\r\nok\r\n0\r\n\r\n", Reject}, {"minus", "-2\r\nok\r\n0\r\n\r\n", Reject}, {"hex", "0x2\r\nok\r\n0\r\n\r\n", Reject}, {"space-before", " 2\r\nok\r\n0\r\n\r\n", Reject}, {"wraps", "10000000000000002\r\nok\r\n0\r\n\r\n", Reject}, {"negative", "fffffffffffffffe\r\nok\r\n0\r\n\r\n", Reject}, {"empty", "\r\nok\r\n0\r\n\r\n", Reject}, {"bad-trailer", "2\r\nok\r\n0\r\nX T\r\n\r\n", Reject}, {"trailer-fold", "2\r\nok\r\n0\r\nX-T: v\r\n w\r\n\r\n", Reject}, {"last-lf", "2\r\nok\r\n0\n\n", Reject}, {"too-short", "1\r\nok\r\n0\r\n\r\n", Reject},
	} {
		all = append(all, Answer{Name: "chunk-" + v.name, Raw: chunked + v.text, Want: v.want, Body: "ok"})
	}
	for _, v := range []variant{
		{"identity", "identity", Either}, {"gzip", "gzip", Either}, {"twice", "chunked, chunked", Reject}, {"identity-last", "chunked, identity", Reject}, {"quoted", "\"chunked\"", Reject}, {"unknown", "cow", Either}, {"odd", "xchunked", Either}, {"vt", "\x0bchunked", Reject},
	} {
		all = append(all, Answer{Name: "te-" + v.name, Raw: okHead + "Transfer-Encoding: " + v.text + "\r\n\r\n2\r\nok\r\n0\r\n\r\n", Want: v.want, Close: true})
	}
	return append(all,
		Answer{Name: "until-close", Raw: okHead + "\r\nok", Want: Forward, Close: true, Body: "ok"},
		Answer{Name: "until-close-1.0", Raw: "HTTP/1.0 200 OK\r\n\r\nok", Want: Forward, Close: true, Body: "ok"},
		Answer{Name: "cut-length", Raw: okHead + "Content-Length: 50\r\n\r\nok", Want: Reject, Close: true},
		Answer{Name: "cut-chunk", Raw: chunked + "50\r\nok", Want: Reject, Close: true},
		Answer{Name: "cut-before-last-chunk", Raw: chunked + "2\r\nok\r\n", Want: Reject, Close: true},
		Answer{Name: "cut-in-last-chunk", Raw: chunked + "2\r\nok\r\n0\r\n", Want: Reject, Close: true},
		Answer{Name: "cut-head", Raw: okHead + "Content-Len", Want: Reject, Close: true},
		Answer{Name: "nothing", Raw: "", Want: Reject, Close: true},
		Answer{Name: "1.0-chunked", Raw: "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Want: Either, Close: true},
	)
}

// answerFollows have more behind an answer, which must reach nobody.
func answerFollows() []Answer {
	ok := okHead + "Content-Length: 2\r\n\r\nok"
	poison := okHead + "Content-Length: 6\r\n\r\npoison"
	return []Answer{
		{Name: "more-than-length", Raw: ok + "more", Want: Either, Body: "ok"},
		{Name: "two-answers", Raw: ok + poison, Want: Either, Body: "ok"},
		{Name: "two-answers-chunked", Raw: okHead + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + poison, Want: Either, Body: "ok"},
		{Name: "204-with-body", Raw: "HTTP/1.1 204 No Content\r\n\r\n" + poison, Want: Either},
		{Name: "204-with-length", Raw: "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison", Want: Either},
		{Name: "304-with-body", Raw: "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison", Want: Either},
		{Name: "304-chunked", Raw: "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n", Want: Either},
		{Name: "head-with-body", Raw: okHead + "Content-Length: 6\r\n\r\npoison", Want: Either, Method: "HEAD"},
		{Name: "head-chunked", Raw: okHead + "Transfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n", Want: Either, Method: "HEAD"},
		{Name: "head-plain", Raw: okHead + "Content-Length: 6\r\n\r\n", Want: Forward, Method: "HEAD"},
		{Name: "continue-unasked", Raw: "HTTP/1.1 100 Continue\r\n\r\n" + ok, Want: Forward, Body: "ok"},
		{Name: "continue-with-length", Raw: "HTTP/1.1 100 Continue\r\nContent-Length: 6\r\n\r\npoison" + ok, Want: Reject},
		{Name: "many-hints", Raw: strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 3) + ok, Want: Forward, Body: "ok"},
		{Name: "endless-hints", Raw: strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 20000) + ok, Want: Either, Body: "ok"},
		{Name: "endless-continue", Raw: strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 50000) + ok, Want: Either, Body: "ok"},
		{Name: "close-in-field", Raw: okHead + "Connection: close\r\nContent-Length: 2\r\n\r\nok" + poison, Want: Either, Body: "ok"},
	}
}
