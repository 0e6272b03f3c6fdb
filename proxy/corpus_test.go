package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"

	"moire.dev/moire/snapshot/policy"
)

// What becomes of a request: this, or the name of the rule that denies it.
const (
	comes    = "comes"    // to the application
	doubtful = "doubtful" // 400, or the stream is reset: it could be read in two ways
)

// guarded is the Set of the application: all comes but what is denied here.
func guarded() policy.Set {
	deny := func(name string, m policy.RequestMatch) policy.Rule {
		return policy.Rule{ID: policy.RuleID("policy/shop/api/ingress/" + name), Tier: policy.Project, Action: policy.Deny, Requests: []policy.RequestMatch{m}}
	}
	return policy.Set{Isolated: "isolated/shop/api/ingress", Rules: []policy.Rule{
		deny("path", policy.RequestMatch{Paths: []policy.TextMatch{{Kind: policy.Prefix, Value: "/admin"}}}),
		deny("host", policy.RequestMatch{Hosts: []policy.TextMatch{{Value: "secret.example"}, {Kind: policy.Suffix, Value: ".secret.example"}}}),
		deny("header", policy.RequestMatch{Headers: []policy.NamedMatch{{Name: "x-debug", TextMatch: policy.TextMatch{Value: "1"}}}}),
		deny("method", policy.RequestMatch{Methods: []string{"DELETE"}}),
		deny("call", policy.RequestMatch{GRPC: []policy.Call{{Service: "shop.v1.Cart", Method: "Empty"}}}),
		{ID: "policy/shop/api/ingress/all", Tier: policy.Project, Action: policy.Allow, Requests: []policy.RequestMatch{{}}},
	}}
}

// corpus1 are requests of HTTP/1: their first line and fields, and what becomes of
// them. Host is shop.example unless a field says it.
var corpus1 = []struct{ head, want string }{
	{"GET /cart HTTP/1.1", comes},
	{"GET /admin HTTP/1.1", "path"},
	{"GET /admin/ HTTP/1.1", "path"},
	{"GET /admin?x HTTP/1.1", "path"},
	{"GET /admin/users HTTP/1.1", "path"},
	{"GET /administrator HTTP/1.1", comes},
	{"GET /Admin HTTP/1.1", comes}, // paths are case-sensitive
	{"GET //admin HTTP/1.1", "path"},
	{"GET ///admin//x HTTP/1.1", "path"},
	{"GET /./admin HTTP/1.1", "path"},
	{"GET /x/../admin HTTP/1.1", "path"},
	{"GET /admin/../cart HTTP/1.1", comes},
	{"GET /admin/./../cart HTTP/1.1", comes},
	{"GET /../admin HTTP/1.1", doubtful},
	{"GET /%61dmin HTTP/1.1", "path"},
	{"GET /%61%64%6D%69%6e HTTP/1.1", "path"},
	{"GET /%2561dmin HTTP/1.1", comes}, // %25 is a percent sign
	{"GET /x%2f..%2fadmin HTTP/1.1", doubtful},
	{"GET /%2fadmin HTTP/1.1", doubtful},
	{"GET /x/%2e%2e/admin HTTP/1.1", "path"},
	{"GET /x/.%2E/admin HTTP/1.1", "path"},
	{"GET /%2e/admin HTTP/1.1", "path"},
	{"GET /x/..;/admin HTTP/1.1", doubtful},
	{"GET /x/..;a=b/admin HTTP/1.1", doubtful},
	{"GET /admin;x HTTP/1.1", comes}, // another element
	{`GET /\admin HTTP/1.1`, doubtful},
	{`GET /x\..\admin HTTP/1.1`, doubtful},
	{"GET /x%5c..%5cadmin HTTP/1.1", doubtful},
	{"GET /admin%00 HTTP/1.1", doubtful},
	{"GET /%00/../admin HTTP/1.1", doubtful},
	{"GET /admin%zz HTTP/1.1", doubtful},
	{"GET /admin% HTTP/1.1", doubtful},
	{"GET /cart#/admin HTTP/1.1", doubtful},
	{"GET /cart?/../admin HTTP/1.1", comes},
	{"GET /cart%3f/../admin HTTP/1.1", "path"},
	{"GET /cart%23/../admin HTTP/1.1", "path"},
	{"GET /adm\tin HTTP/1.1", doubtful},
	{"GET /\xc3\xa4dmin HTTP/1.1", doubtful},
	{"GET /%c0%aeadmin HTTP/1.1", comes}, // no UTF-8 for a full stop
	{"GET http://shop.example/admin HTTP/1.1", "path"},
	{"GET http://shop.example//x/../admin HTTP/1.1", "path"},
	{"GET HTTP://SHOP.example/cart HTTP/1.1", comes},
	{"GET http://secret.example/cart HTTP/1.1\nHost: secret.example", "host"},
	{"GET http://secret.example/cart HTTP/1.1\nHost: shop.example", doubtful},
	{"GET http://shop.example/cart HTTP/1.1\nHost: secret.example", doubtful},
	{"GET http://a@secret.example/cart HTTP/1.1\nHost: secret.example", doubtful},
	{"GET http://shop.example HTTP/1.1", comes},
	{"GET http://shop.example?/admin HTTP/1.1", comes},
	{"GET admin HTTP/1.1", doubtful},
	{"OPTIONS * HTTP/1.1", comes},
	{"GET * HTTP/1.1", doubtful},
	{"GET /cart HTTP/1.1\nHost: secret.example", "host"},
	{"GET /cart HTTP/1.1\nHost: SECRET.example", "host"},
	{"GET /cart HTTP/1.1\nHost: secret.example:8080", "host"},
	{"GET /cart HTTP/1.1\nHost: secret.example.", "host"},
	{"GET /cart HTTP/1.1\nHost: Secret.Example.:80", "host"},
	{"GET /cart HTTP/1.1\nHost: a.secret.example", "host"},
	{"GET /cart HTTP/1.1\nHost: secret.example..", doubtful},
	{"GET /cart HTTP/1.1\nHost: secret.example:", doubtful},
	{"GET /cart HTTP/1.1\nHost: secret.example:80x", doubtful},
	{"GET /cart HTTP/1.1\nHost: x@secret.example", doubtful},
	{"GET /cart HTTP/1.1\nHost: secret.example/", doubtful},
	{"GET /cart HTTP/1.1\nHost: secret%2eexample", doubtful},
	{"GET /cart HTTP/1.1\nHost: shop.example, secret.example", doubtful},
	{"GET /cart HTTP/1.1\nHost: shop.example\nHost: secret.example", doubtful},
	{"GET /cart HTTP/1.1\nHost: shop.example\nhost: shop.example", doubtful},
	{"GET /cart HTTP/1.1\nHost: ", doubtful},
	{"GET /cart HTTP/1.1\nx-debug: 0", comes},
	{"GET /cart HTTP/1.1\nx-debug: 1", "header"},
	{"GET /cart HTTP/1.1\nX-DEBUG: 1", "header"},
	{"GET /cart HTTP/1.1\nx-debug:1", "header"},
	{"GET /cart HTTP/1.1\nx-debug: \t1 \t", "header"},
	{"GET /cart HTTP/1.1\nx-debug: 0\nx-debug: 1", "header"},
	{"GET /cart HTTP/1.1\nx-debug: 1\nx-debug: 0", "header"},
	{"GET /cart HTTP/1.1\nx-debug: 1\nx-debug: 1", "header"},
	{"GET /cart HTTP/1.1\nx-debug: 0\nx-debug: 0", comes},
	{"GET /cart HTTP/1.1\nx-debug: 1, 0", comes}, // one value, and not 1
	{"GET /cart HTTP/1.1\nx-debug : 1", doubtful},
	{"GET /cart HTTP/1.1\nx-debug: 0\n 1", doubtful},
	{"GET /cart HTTP/1.1\nx-debug: 1\nConnection: x-debug", comes}, // it does not come
	{"GET /cart HTTP/1.1\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA", comes}, // without its Upgrade
	{"DELETE /cart HTTP/1.1", "method"},
	{"delete /cart HTTP/1.1", comes}, // methods are case-sensitive
	{"Delete /cart HTTP/1.1", comes},
	{"DELETE\t/cart HTTP/1.1", doubtful},
	{"POST /cart HTTP/1.1\nX-HTTP-Method-Override: DELETE\nContent-Length: 0", comes},
	{"POST /shop.v1.Cart/Empty HTTP/1.1\nContent-Type: application/grpc\nContent-Length: 0", "call"},
	{"POST /shop.v1.Cart/%45mpty HTTP/1.1\nContent-Type: application/grpc+proto\nContent-Length: 0", "call"},
	{"POST //shop.v1.Cart//Empty HTTP/1.1\nContent-Type: APPLICATION/GRPC;x\nContent-Length: 0", "call"},
	{"POST /shop.v1.Cart/Get HTTP/1.1\nContent-Type: application/grpc\nContent-Length: 0", comes},
}

// corpus2 are requests of HTTP/2 as their fields; "" in front of a value that is
// not to be there. What is not said is GET /cart at shop.example.
var corpus2 = []struct{ fields, want string }{
	{"", comes},
	{":path: /admin", "path"},
	{":path: //admin", "path"},
	{":path: /x/../admin", "path"},
	{":path: /%61dmin", "path"},
	{":path: /%2fadmin", doubtful},
	{":path: /x/..;/admin", doubtful},
	{":path: admin", doubtful},
	{":path: http://shop.example/admin", doubtful},
	{":path: ", doubtful},
	{":path: *", doubtful},
	{":path: /cart /admin", doubtful},
	{":path: /cart#/admin", doubtful},
	{":path: /cart\n:path: /admin", doubtful},
	{":authority: secret.example", "host"},
	{":authority: SECRET.example.:8080", "host"},
	{":authority: a@secret.example", doubtful},
	{":authority: secret.example:", doubtful},
	{":authority: shop.example\nhost: secret.example", doubtful},
	{":authority: shop.example\n:authority: secret.example", doubtful},
	{":authority: -\nhost: secret.example", "host"},
	{":authority: -\nhost: shop.example\nhost: secret.example", doubtful},
	{":method: DELETE", "method"},
	{":method: delete", comes},
	{":method: DELETE /admin", doubtful},
	{"x-debug: 1", "header"},
	{"x-debug: 0\nx-debug: 1", "header"},
	{"X-Debug: 1", doubtful},
	{"x-debug: 0\n:method: DELETE", doubtful},
	{"transfer-encoding: chunked", doubtful},
	{"connection: x-debug\nx-debug: 1", doubtful},
}

// arrival is a request as the application got it.
type arrival struct {
	method, path, host string
	fields             map[string][]string
}

// arrivals are by the field x-case.
type arrivals struct {
	mu sync.Mutex
	by map[string]arrival
}

func (a *arrivals) take(name string) (arrival, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	got, ok := a.by[name]
	delete(a.by, name)
	return got, ok
}

// raw is an application that reads the very bytes that come.
func (a *arrivals) raw(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		var head bytes.Buffer
		for !bytes.HasSuffix(head.Bytes(), []byte("\r\n\r\n")) {
			b, err := r.ReadByte()
			if err != nil {
				return
			}
			head.WriteByte(b)
		}
		lines := strings.Split(strings.TrimSuffix(head.String(), "\r\n\r\n"), "\r\n")
		first := strings.SplitN(lines[0], " ", 3)
		got := arrival{method: first[0], path: first[1], fields: map[string][]string{}}
		for _, l := range lines[1:] {
			name, value, _ := strings.Cut(l, ": ")
			if name = strings.ToLower(name); name == "host" {
				got.host += value
				continue
			}
			got.fields[name] = append(got.fields[name], value)
		}
		a.mu.Lock()
		a.by[strings.Join(got.fields["x-case"], "")] = got
		a.mu.Unlock()
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
			return
		}
	}
}

// ServeHTTP is an application that speaks HTTP/2.
func (a *arrivals) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	got := arrival{method: r.Method, path: r.RequestURI, host: r.Host, fields: map[string][]string{}}
	for name, values := range r.Header {
		got.fields[strings.ToLower(name)] = values
	}
	a.mu.Lock()
	a.by[r.Header.Get("x-case")] = got
	a.mu.Unlock()
}

// readings are the ways in which servers may read what arrived: as it is, decoded,
// cleaned, twice decoded.
func (a *arrival) readings() (paths []string) {
	p, _, _ := strings.Cut(a.path, "?")
	decoded, err := url.PathUnescape(p)
	if err != nil {
		decoded = p
	}
	return []string{p, decoded, path.Clean(p), path.Clean(decoded), path.Clean(strings.ReplaceAll(decoded, `\`, "/"))}
}

// forbidden says which rule is got around; empty: none.
func (a *arrival) forbidden() string {
	for _, p := range a.readings() {
		if p == "/admin" || strings.HasPrefix(p, "/admin/") {
			return "path " + p
		}
	}
	host, _, _ := strings.Cut(strings.ToLower(a.host), ":")
	if host = strings.TrimSuffix(host, "."); host == "secret.example" || strings.HasSuffix(host, ".secret.example") {
		return "host " + a.host
	}
	if d := a.fields["x-debug"]; slices.Contains(d, "1") {
		return "header " + fmt.Sprint(d)
	}
	if a.method == "DELETE" {
		return "method"
	}
	if u := a.fields["upgrade"]; len(u) > 0 { // requests inside of it nobody would see
		return "everything: " + fmt.Sprint(u)
	}
	if strings.HasPrefix(strings.ToLower(strings.Join(a.fields["content-type"], "")), "application/grpc") && a.path == "/shop.v1.Cart/Empty" {
		return "call"
	}
	return ""
}
