package smuggle

import (
	"fmt"
	"strings"
)

func whole(vs []variant, family string) []Case {
	return each(family, vs, func(raw string) string { return raw })
}

// lineEnds: every line end of a request in another form. The empty lines behind
// complete the head for every reader.
func lineEnds() []Case {
	get := "GET /c/{id} HTTP/1.1\r\nHost: a.test\r\nX-A: b\r\n\r\n"
	var cases []Case
	for _, end := range []variant{{"lf", "\n", Reject}, {"cr", "\r", Reject}, {"crcrlf", "\r\r\n", Reject}, {"lfcr", "\n\r", Reject}, {"nul-crlf", "\x00\r\n", Reject}, {"crlf-space", "\r\n ", Reject}, {"vt", "\x0b", Reject}, {"nel", "\xc2\x85", Reject}} {
		for at := range 4 {
			parts := strings.SplitAfterN(get, "\r\n", 5)
			parts[at] = strings.TrimSuffix(parts[at], "\r\n") + end.text
			want := Reject
			if end.name == "crlf-space" && at == 3 || end.name == "nel" && at == 2 {
				want = Either // the head ends before the space; the value may hold what is not ASCII
			}
			cases = append(cases, Case{fmt.Sprintf("line-end/%s-%d", end.name, at), strings.Join(parts, "") + "\r\n\r\n", want})
		}
		cases = append(cases, Case{"line-end/" + end.name + "-all", strings.ReplaceAll(get, "\r\n", end.text) + "\r\n\r\n", Reject})
	}
	return append(cases, whole([]variant{
		{"obs-fold-space", "GET /c/{id} HTTP/1.1\r\nHost: a.test\r\nX-A: b\r\n c\r\n\r\n", Reject},
		{"obs-fold-tab", "GET /c/{id} HTTP/1.1\r\nHost: a.test\r\nX-A: b\r\n\tc\r\n\r\n", Reject},
		{"fold-before-first", "GET /c/{id} HTTP/1.1\r\n X-A: b\r\nHost: a.test\r\n\r\n", Reject},
		{"fold-host", "GET /c/{id} HTTP/1.1\r\nHost:\r\n a.test\r\n\r\n", Reject},
		{"blank-line-of-spaces", "GET /c/{id} HTTP/1.1\r\nHost: a.test\r\n \r\n" + hidden, Reject},
		{"lf-blank-hides", "GET /c/{id} HTTP/1.1\r\nHost: a.test\r\nX-A: b\n\n" + hidden, Reject},
		{"cr-blank-hides", "GET /c/{id} HTTP/1.1\r\nHost: a.test\r\nX-A: b\r\r" + hidden, Reject},
		{"lf-then-field", "GET /c/{id} HTTP/1.1\r\nHost: a.test\r\nX-A: b\nX-B: c\r\n\r\n", Reject},
		{"cr-in-value", "GET /c/{id} HTTP/1.1\r\nHost: a.test\r\nX-A: b\rc\r\n\r\n", Reject},
		{"nul-in-value", "GET /c/{id} HTTP/1.1\r\nHost: a.test\r\nX-A: b\x00c\r\n\r\n", Reject},
	}, "fold")...)
}

// chunks: chunk sizes and extensions.
func chunks() []Case {
	post := "POST /c/{id} HTTP/1.1\r\n" + head + "Transfer-Encoding: chunked\r\n\r\n"
	sizes := []variant{
		{"plain", "5", Forward}, {"leading-zero", "05", Forward}, {"zeros", "00000000000000005", Either}, {"many-zeros", strings.Repeat("0", 4000) + "5", Either},
		{"too-large", "A", Either}, {"plus", "+5", Reject}, {"minus", "-5", Reject}, {"minus-minus", "--5", Reject}, {"0x", "0x5", Reject}, {"underscore", "5_", Reject}, {"underscore-first", "_5", Reject},
		{"space-before", " 5", Reject}, {"space-after", "5 ", Either}, {"tab-after", "5\t", Either}, {"tab-before", "\t5", Reject}, {"vt", "5\x0b", Reject}, {"nul", "5\x00", Reject}, {"cr", "5\r", Reject},
		{"word", "g", Reject}, {"trailing-word", "5g", Reject}, {"empty", "", Reject}, {"comma", "5,", Reject}, {"dot", "5.0", Reject}, {"h", "5h", Reject},
		{"wraps-32", "100000005", Either}, {"wraps-64", "10000000000000005", Reject}, {"negative-64", "fffffffffffffffb", Reject}, {"enormous", strings.Repeat("f", 64), Reject},
		{"extension", "5;a=b", Either}, {"extension-flag", "5;a", Either}, {"extension-spaces", "5 ; a = b", Either}, {"extension-quoted", "5;a=\"b\"", Either}, {"extension-two", "5;a=b;c=d", Either},
		{"extension-empty", "5;", Either}, {"extension-quoted-crlf", "5;a=\"\r\n0\r\n\r\n\"", Reject}, {"extension-lf", "5;a=\nb", Reject}, {"extension-cr", "5;a=\rb", Reject}, {"extension-nul", "5;\x00", Reject},
		{"extension-long", "5;a=" + strings.Repeat("b", 20000), Either}, {"extension-request", "5;GET /s/{id} HTTP/1.1", Either},
	}
	cases := each("chunk-size", sizes, func(s string) string { return post + s + "\r\nhello\r\n0\r\n\r\n" })
	// What stands behind the data of a chunk, and behind the last.
	cases = append(cases, each("chunk-end", []variant{
		{"lf", "\n", Reject}, {"cr", "\r", Reject}, {"none", "", Reject}, {"space", " \r\n", Reject}, {"word", "x\r\n", Reject}, {"two", "\r\n\r\n", Reject}, {"lfcr", "\n\r", Reject}, {"xx", "xx", Reject},
	}, func(s string) string { return post + "5\r\nhello" + s + "0\r\n\r\n" })...)
	cases = append(cases, each("chunk-size-end", []variant{
		{"lf", "\n", Reject}, {"cr", "\r", Reject}, {"crcrlf", "\r\r\n", Reject}, {"space-lf", " \n", Reject}, {"extension-lf", ";a\n", Reject},
	}, func(s string) string { return post + "5" + s + "hello\r\n0\r\n\r\n" })...)
	cases = append(cases, each("chunk-last", []variant{
		{"plain", "0\r\n\r\n", Forward}, {"zeros", "000\r\n\r\n", Either}, {"extension", "0;a=b\r\n\r\n", Either}, {"lf", "0\n\r\n", Reject}, {"lf-lf", "0\n\n", Reject}, {"crlf-lf", "0\r\n\n", Reject}, {"cr", "0\r\r\n\r\n", Reject},
		{"minus", "-0\r\n\r\n", Reject}, {"plus", "+0\r\n\r\n", Reject}, {"0x0", "0x0\r\n\r\n", Reject}, {"space", "0 \r\n\r\n", Either}, {"word", "0\r\nX\r\n\r\n", Reject}, {"double", "0\r\n\r\n0\r\n\r\n", Either},
	}, func(s string) string { return post + "5\r\nhello\r\n" + s })...)
	// A chunk whose size two readers may take for another, hiding a request.
	n := size(hidden)
	return append(cases, whole([]variant{
		{"lf-size", post + fmt.Sprintf("%x\n", n) + hidden + "\r\n0\r\n\r\n", Reject},
		{"lf-extension", post + fmt.Sprintf("2;\nxx\r\n%x\r\n0\r\n\r\n", n) + hidden + "\r\n0\r\n\r\n", Reject},
		{"lf-data-end", post + "5\r\nhello\n" + fmt.Sprintf("%x\r\n", n) + hidden + "\r\n0\r\n\r\n", Reject},
		{"short-size", post + "1\r\nhello\r\n0\r\n\r\n" + hidden, Reject},
		{"long-size", post + "6\r\nhello\r\n0\r\n\r\n" + hidden, Reject},
		{"wrapping-size", post + "10000000000000000\r\n\r\n" + hidden, Reject},
		{"quoted-extension", post + fmt.Sprintf("%x;a=\"\n\"\r\n", n) + hidden + "\r\n0\r\n\r\n", Reject},
		{"right", post + fmt.Sprintf("%x\r\n", n) + hidden + "\r\n0\r\n\r\n", Forward},
		{"right-then-request", post + "5\r\nhello\r\n0\r\n\r\n" + strings.ReplaceAll(hidden, "/s/", "/c/"), Forward},
		{"two-byte-terminator", post + "5\r\nhelloXX0\r\n\r\n" + hidden, Reject},
		{"incomplete", post + "5\r\nhel", Either},
	}, "chunk-hides")...)
}

func trailers() []Case {
	return each("trailer", []variant{
		{"plain", "X-T: v\r\n", Forward}, {"two", "X-T: v\r\nX-U: w\r\n", Forward}, {"content-length", "Content-Length: 5\r\n", Either}, {"transfer-encoding", "Transfer-Encoding: chunked\r\n", Either},
		{"host", "Host: b.test\r\n", Either}, {"stamp", "X-Stamp: forged\r\n", Either}, {"no-colon", "word\r\n", Reject}, {"space-before-colon", "X-T : v\r\n", Reject}, {"leading-space", " X-T: v\r\n", Reject},
		{"fold", "X-T: v\r\n w\r\n", Reject}, {"lf", "X-T: v\n", Reject}, {"cr", "X-T: v\rw\r\n", Reject}, {"nul", "X-T: v\x00\r\n", Reject}, {"request", "GET /s/{id} HTTP/1.1\r\nHost: a.test\r\n", Reject},
		{"empty-name", ": v\r\n", Reject}, {"many", strings.Repeat("X-T: v\r\n", 200), Either}, {"long", "X-T: " + strings.Repeat("v", 70000) + "\r\n", Either},
	}, func(t string) string {
		return "POST /c/{id} HTTP/1.1\r\n" + head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" + t + "\r\n"
	})
}
