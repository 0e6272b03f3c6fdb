package main

import (
	"fmt"
	"strings"

	"moire.dev/moire/proxy/judge/stage"
)

const mebi = 1 << 20

// broken are the exit codes of curl when the other side ends the connection.
var broken = []int{35, 52, 55, 56}

// curlTable lists the cases; a ~ stands for a space inside an argument.
func curlTable() []curlCase {
	all := curlMessages()
	all = append(all, curlTransfers()...)
	all = append(all, curlTransports()...)
	return append(all, curlRoutes()...)
}

func curlMessages() []curlCase {
	var all []curlCase
	for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH"} {
		all = append(all, curlCase{name: "method " + m, args: "-X " + m + " http://{plain}/echo", wants: []string{"HTTP/1.1 200"}, check: saw(m, 0, "")})
	}
	ok := []string{"HTTP/1.1 200"}
	return append(all,
		curlCase{name: "TRACE is the origin's affair", args: "-X TRACE http://{plain}/echo", wants: []string{"HTTP/1.1 "}},
		curlCase{name: "HEAD", args: "-I http://{plain}/bytes/1000", wants: []string{"HTTP/1.1 200", "ontent-", "1000"}},
		curlCase{name: "HEAD h2", args: "--http2-prior-knowledge -I http://{known}/bytes/1000", wants: []string{"HTTP/2 200", "content-length: 1000"}},
		curlCase{name: "HEAD then GET on one connection", args: "-I http://{plain}/bytes/10 --next -sS -i http://{plain}/", wants: []string{"this is the origin"}},
		curlCase{name: "status 204", args: "http://{plain}/status/204", wants: []string{"HTTP/1.1 204", "!ransfer-"}},
		curlCase{name: "status 304", args: "http://{plain}/status/304", wants: []string{"HTTP/1.1 304"}},
		curlCase{name: "status 404", args: "http://{plain}/status/404", wants: []string{"HTTP/1.1 404"}},
		curlCase{name: "status 503", args: "http://{plain}/status/503", wants: []string{"HTTP/1.1 503"}},
		curlCase{name: "status 599", args: "http://{plain}/status/599", wants: []string{"HTTP/1.1 599"}},
		curlCase{name: "early hints", args: "http://{plain}/hints", wants: []string{"200 OK", "after the hints"}},
		curlCase{name: "early hints passed", args: "http://{plain}/hints", wants: []string{"103 Early Hints", "rel=preload"}},
		curlCase{name: "early hints h2", args: "--http2-prior-knowledge http://{known}/hints", wants: []string{"HTTP/2 200", "after the hints"}},
		curlCase{name: "redirect of the origin passes", args: "http://{plain}/redirect", wants: []string{"302 Found", "ocation: /echo"}},
		curlCase{name: "redirect followed", args: "-L http://{plain}/redirect", wants: []string{"302 Found", "HTTP/1.1 200"}},
		curlCase{name: "compression passes", args: "--compressed http://{plain}/gzip", wants: []string{"ontent-", "gzip", "compressed by the origin"}},
		curlCase{name: "compressed bytes untouched", args: "-H Accept-Encoding:~gzip http://{plain}/gzip", sum: stage.GzipSum()},
		curlCase{name: "two cookies stay two", args: "http://{plain}/cookies", wants: []string{"a=1; Path=/", "b=2; Path=/; HttpOnly"}},
		curlCase{name: "cookie sent", args: "-b a=1;b=2 http://{plain}/echo", wants: ok, check: sawField("Cookie", "a=1;b=2")},
		curlCase{name: "cookie sent h2", args: "--http2-prior-knowledge -b a=1;~b=2 http://{known}/echo", check: sawField("Cookie", "a=1; b=2")},
		curlCase{name: "repeated fields stay in order", args: "-H X-A:~1 -H X-A:~2 http://{plain}/echo", check: sawField("X-A", "1,2")},
		curlCase{name: "empty field", args: "-H X-Empty; http://{plain}/echo", wants: []string{`"X-Empty":[""]`}},
		curlCase{name: "host reaches the origin", args: "-H Host:~a.test http://{plain}/echo", wants: []string{`"host":"a.test"`}},
		curlCase{name: "query as it was", args: "-g http://{plain}/echo?a=%20b&c=[d]&a=2", wants: []string{`"target":"/echo?a=%20b\u0026c=[d]\u0026a=2"`}},
		curlCase{name: "path as it was", args: "--path-as-is http://{plain}/echo?x/../y//z", wants: []string{"x/../y//z"}},
		curlCase{name: "connection field dropped", args: "-H Connection:~close,~X-Hop -H X-Hop:~1 http://{plain}/echo", check: sawField("X-Hop", "")},
		curlCase{name: "authorization passes", args: "-u user:secret http://{plain}/echo", check: sawField("Authorization", "Basic dXNlcjpzZWNyZXQ=")},
		curlCase{name: "HTTP/1.0", args: "-0 http://{plain}/echo", wants: []string{"200 OK"}, check: saw("GET", 0, "")},
		curlCase{name: "HTTP/1.0 gets no chunks", args: "-0 http://{plain}/chunked/5", wants: []string{"part 4", "!hunked\r\n"}},
		curlCase{name: "HTTP/1.0 POST", args: "-0 -d @{dir}/small http://{plain}/echo", check: saw("POST", 12, "length 12")},
		curlCase{name: "trailers", args: "--raw http://{plain}/trailers", wants: []string{"c0ffee"}},
		curlCase{name: "trailers h2", args: "--http2-prior-knowledge http://{known}/trailers", wants: []string{"body before trailers", "c0ffee"}},
		curlCase{name: "options star", args: "-X OPTIONS --request-target * http://{plain}/", wants: []string{"HTTP/1.1 "}},
		curlCase{name: "CONNECT is refused", args: "-p -x http://{plain} http://a.test/echo", exit: broken},
		curlCase{name: "absolute form", args: "--request-target http://a.test/echo -H Host:~a.test http://{plain}/", wants: []string{`"host":"a.test"`}},
		curlCase{name: "head of 40 KiB", args: "-H X-Long:~" + strings.Repeat("v", 7000) + strings.Repeat(" -H X-L:~"+strings.Repeat("w", 6000), 4) + " http://{plain}/echo", wants: ok},
		curlCase{name: "head of 100 KiB is refused", args: strings.Repeat("-H X-L:~"+strings.Repeat("w", 7000)+" ", 15) + "http://{plain}/echo", wants: []string{"HTTP/1.1 4"}},
	)
}

func curlTransfers() []curlCase {
	big := stage.PatternSum(0, 8*mebi)
	return []curlCase{
		{name: "range", args: "-r 100-199 http://{plain}/bytes/1000", wants: []string{"206 Partial", "bytes 100-199/1000"}},
		{name: "range bytes", args: "-r 5000000-5999999 http://{plain}/bytes/8388608", sum: stage.PatternSum(5000000, 6000000)},
		{name: "range not satisfiable", args: "-r 2000-3000 http://{plain}/bytes/1000", wants: []string{"416"}},
		{name: "two ranges", args: "-r 0-9,20-29 http://{plain}/bytes/1000", wants: []string{"206 Partial", "multipart/byteranges"}},
		{name: "if-none-match", args: "-H If-None-Match:~\"b10\" http://{plain}/bytes/10", wants: []string{"304 Not Modified"}},
		{name: "chunked download", args: "http://{plain}/chunked/200", wants: []string{"part 199"}},
		{name: "chunked download h2", args: "--http2-prior-knowledge http://{known}/chunked/200", wants: []string{"HTTP/2 200", "part 199"}},
		{name: "download 256 MiB", args: fmt.Sprintf("http://{plain}/bytes/%d -o /dev/null -w size=%%{size_download}", 256*mebi), wants: []string{fmt.Sprintf("size=%d", 256*mebi)}},
		{name: "download 32 MiB, checksum", args: fmt.Sprintf("http://{plain}/bytes/%d", 32*mebi), sum: stage.PatternSum(0, 32*mebi)},
		{name: "download 32 MiB h2, checksum", args: fmt.Sprintf("--http2-prior-knowledge http://{known}/bytes/%d", 32*mebi), sum: stage.PatternSum(0, 32*mebi)},
		{name: "download 32 MiB TLS h2, checksum", args: fmt.Sprintf("https://{tls}/bytes/%d", 32*mebi), sum: stage.PatternSum(0, 32*mebi)},
		{name: "download 32 MiB TLS 1.1, checksum", args: fmt.Sprintf("--http1.1 https://{tls}/bytes/%d", 32*mebi), sum: stage.PatternSum(0, 32*mebi)},
		{name: "slow download is whole", args: "--limit-rate 4M http://{plain}/bytes/8388608", sum: big},
		{name: "upload", args: "-T {dir}/big http://{plain}/echo", check: sawSum(big, 8*mebi)},
		{name: "upload h2", args: "--http2-prior-knowledge -T {dir}/big http://{known}/echo", check: sawSum(big, 8*mebi)},
		{name: "upload TLS h2", args: "-T {dir}/big https://{tls}/echo", check: sawSum(big, 8*mebi)},
		{name: "upload TLS 1.1", args: "--http1.1 -T {dir}/big https://{tls}/echo", check: sawSum(big, 8*mebi)},
		{name: "upload chunked", args: "-T {dir}/big -H Transfer-Encoding:~chunked http://{plain}/echo", check: sawSum(big, 8*mebi)},
		{name: "upload chunked small", args: "-d @{dir}/small -H Transfer-Encoding:~chunked http://{plain}/echo", check: saw("POST", 12, "")},
		{name: "upload slowly", args: "--limit-rate 4M -T {dir}/big http://{plain}/echo", check: sawSum(big, 8*mebi)},
		{name: "expect 100", args: "-T {dir}/small -H Expect:~100-continue http://{plain}/echo", wants: []string{"HTTP/1.1 200"}, check: saw("PUT", 12, "")},
		{name: "expect 100, big", args: "-T {dir}/big -H Expect:~100-continue --expect100-timeout 10 http://{plain}/echo", check: sawSum(big, 8*mebi)},
		{name: "form", args: "-F file=@{dir}/big -F name=value http://{plain}/echo", wants: []string{"multipart/form-data"}},
		{name: "POST with empty body", args: "-X POST -H Content-Length:~0 http://{plain}/echo", check: saw("POST", 0, "length 0")},
		{name: "GET with body", args: "-X GET -d @{dir}/small http://{plain}/echo", check: saw("GET", 12, "")},
		{name: "DELETE with body", args: "-X DELETE -d @{dir}/small http://{plain}/echo", check: saw("DELETE", 12, "")},
		{name: "cut off by the client", args: "--max-filesize 1000 http://{plain}/bytes/8388608", exit: []int{63}},
		{name: "after a cut, all is well", args: "http://{plain}/echo", check: saw("GET", 0, "")},
	}
}

func curlTransports() []curlCase {
	reuse := func(flags, at string) string {
		return flags + " -o /dev/null -w [%{num_connects}] " + strings.TrimSpace(strings.Repeat(at+" ", 1)) + strings.Repeat(" --next -sS -o /dev/null -w [%{num_connects}] "+flags+" "+at, 4)
	}
	return []curlCase{
		{name: "keep-alive", args: reuse("", "http://{plain}/echo"), wants: []string{"[1][0][0][0][0]"}},
		{name: "keep-alive over POST", args: reuse("-d @{dir}/small", "http://{plain}/echo"), wants: []string{"[1][0][0][0][0]"}},
		{name: "keep-alive over errors", args: reuse("", "http://{plain}/status/404"), wants: []string{"[1][0][0][0][0]"}},
		{name: "keep-alive TLS", args: reuse("--cacert {ca} --http1.1", "https://{tls}/echo"), wants: []string{"[1][0][0][0][0]"}},
		{name: "keep-alive h2", args: reuse("--cacert {ca}", "https://{tls}/echo"), wants: []string{"[1][0][0][0][0]"}},
		{name: "fifty at a time h2", args: "-Z --parallel-max 50 https://{tls}/bytes/[1000-1049] -o /dev/null -w %{http_code}:%{http_version};", wants: []string{strings.Repeat("200:2;", 50)}},
		{name: "connection close", args: "-H Connection:~close http://{plain}/echo", wants: []string{"lose"}},
		{name: "prior knowledge", args: "--http2-prior-knowledge http://{known}/echo", wants: []string{"HTTP/2 200"}},
		{name: "prior knowledge on a listener for both", args: "--http2-prior-knowledge http://{plain}/echo", wants: []string{"HTTP/2 200"}},
		{name: "h2c upgrade is not followed", args: "--http2 http://{plain}/echo", wants: []string{"HTTP/1.1 200", "!101"}},
		{name: "ALPN h2", args: "https://{tls}/echo", wants: []string{"HTTP/2 200"}},
		{name: "ALPN http/1.1", args: "--http1.1 https://{tls}/echo", wants: []string{"HTTP/1.1 200"}},
		{name: "no ALPN", args: "--no-alpn https://{tls}/echo", wants: []string{"HTTP/1.1 200"}},
		{name: "HTTP/1.0 TLS", args: "-0 https://{tls}/echo", wants: []string{"200 OK"}},
		{name: "SNI", args: "--resolve a.test:{tlsport}:127.0.0.1 https://a.test:{tlsport}/echo", wants: []string{"HTTP/2 200", `"host":"a.test:`}},
		{name: "no SNI", args: "https://127.0.0.1:{tlsport}/echo", wants: []string{"HTTP/2 200"}},
		{name: "TLS 1.2", args: "--tls-max 1.2 https://{tls}/echo", wants: []string{"HTTP/2 200"}},
		{name: "TLS 1.3", args: "--tlsv1.3 https://{tls}/echo", wants: []string{"HTTP/2 200"}},
		{name: "TLS 1.1 is refused", args: "--tls-max 1.1 --ciphers DEFAULT@SECLEVEL=0 https://{tls}/echo", exit: []int{35}},
		{name: "plain HTTP to TLS is not served", args: "http://{tls}/echo", exit: []int{0, 52, 56}, wants: []string{"!\"target\""}},
		{name: "client certificate", args: "--cert {cert} --key {key} https://{mtls}/echo", wants: []string{"HTTP/2 200"}},
		{name: "client certificate TLS 1.2", args: "--tls-max 1.2 --cert {cert} --key {key} https://{mtls}/echo", wants: []string{"HTTP/2 200"}},
		{name: "no client certificate", args: "https://{mtls}/echo", exit: broken},
		{name: "strange client certificate", args: "--cert {strange} --key {strangekey} https://{mtls}/echo", exit: broken},
		{name: "PROXY protocol", args: "--haproxy-protocol http://{proxied}/echo", wants: []string{"HTTP/1.1 200"}},
		{name: "PROXY protocol missing", args: "http://{proxied}/echo", exit: broken},
		{name: "two at a time", args: "-Z http://{plain}/bytes/[1000-1019] -o /dev/null -w %{http_code};", wants: []string{strings.Repeat("200;", 20)}},
	}
}

func curlRoutes() []curlCase {
	return []curlCase{
		{name: "redirect by the proxy", args: "http://{plain}/moved", wants: []string{" 301", "/echo"}},
		{name: "redirect by the proxy, followed", args: "-L http://{plain}/moved", wants: []string{" 301", "HTTP/1.1 200"}},
		{name: "CORS preflight", own: true, args: "-X OPTIONS -H Origin:~https://shop.test -H Access-Control-Request-Method:~PUT -H Access-Control-Request-Headers:~x-token http://{plain}/cors",
			wants: []string{"HTTP/1.1 20", "https://shop.test", "PUT", "x-token", ": 60", "true"}},
		{name: "CORS preflight of a stranger", own: true, args: "-X OPTIONS -H Origin:~https://evil.test -H Access-Control-Request-Method:~PUT http://{plain}/cors", wants: []string{"!evil.test"}},
		{name: "CORS request", own: true, args: "-H Origin:~https://shop.test http://{plain}/cors", wants: []string{"HTTP/1.1 200", "https://shop.test"}},
		{name: "retry", own: true, args: "http://{plain}/flaky/a", wants: []string{"HTTP/1.1 200", "well the second time"}},
		{name: "no retry of POST", own: true, args: "-d @{dir}/small http://{plain}/flaky/b", wants: []string{"HTTP/1.1 503"}},
		{name: "rewrite", own: true, args: "http://{plain}/old/x?q=1", wants: []string{`"target":"/echo?q=1"`}},
		{name: "changed request fields", own: true, args: "-H X-Secret:~1 -H X-Set:~2 http://{plain}/changed", wants: []string{"x-added: by the proxy", "!X-Secret"}, check: sawField("X-Set", "by the proxy")},
		{name: "time-out", own: true, args: "http://{plain}/sleep/5000", wants: []string{"HTTP/1.1 504"}},
		{name: "rate limit", own: true, args: "-o /dev/null -w %{http_code};~ http://{plain}/limited/[1-5]", wants: []string{"200; 200; 429; 429; 429;"}},
		{name: "internal fields of strangers are removed", own: true, args: "-H x-moire-caller:~spiffe://root -H l5d-dst-override:~b http://{plain}/echo", wants: []string{"!spiffe://root", "!L5d-"}},
		{name: "address of a caller behind PROXY protocol", own: true, args: "--haproxy-protocol http://{proxied}/echo", wants: []string{"127.0.0.1"}},
	}
}
