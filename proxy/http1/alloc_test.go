package http1

import (
	"testing"

	"moire.dev/moire/proxy/message"
)

// typical is a request head of about 500 bytes, as a browser sends it.
const typical = "GET /api/v1/products/4711?currency=EUR&lang=de HTTP/1.1\r\n" +
	"Host: shop.example.com\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n" +
	"Accept-Language: de,en-US;q=0.7,en;q=0.3\r\n" +
	"Accept-Encoding: gzip, deflate, br\r\n" +
	"Cookie: session=8a7d6f5e4c3b2a1908f7e6d5c4b3a291; theme=dark\r\n" +
	"X-Request-Id: 5f3c1e9a-52a8-4c1e-9d2f-0a9b8c7d6e5f\r\n" +
	"Connection: keep-alive\r\n\r\n"

const typicalAnswer = "HTTP/1.1 200 OK\r\nDate: Fri, 27 Nov 2026 19:36:27 GMT\r\nServer: shop\r\n" +
	"Content-Type: application/json\r\nContent-Length: 128\r\nVary: accept-encoding\r\n\r\n"

var typicalLimits = Limits{Fields: 100, Head: 64 << 10}

func BenchmarkParseRequest(b *testing.B) {
	var h message.Head
	head, buf := []byte(typical), []byte(typical)
	b.SetBytes(int64(len(head)))
	b.ReportAllocs()
	for b.Loop() {
		copy(buf, head)
		if err := ParseRequest(buf, &h, &typicalLimits); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHeadEnd(b *testing.B) {
	head := []byte(typical)
	b.SetBytes(int64(len(head)))
	for b.Loop() {
		if HeadEnd(head, 0) != len(head) {
			b.Fatal("no end")
		}
	}
}

func BenchmarkParseResponse(b *testing.B) {
	var h message.Head
	head, buf, get := []byte(typicalAnswer), []byte(typicalAnswer), []byte("GET")
	b.SetBytes(int64(len(head)))
	b.ReportAllocs()
	for b.Loop() {
		copy(buf, head)
		if err := ParseResponse(buf, &h, &typicalLimits, get); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendRequest(b *testing.B) {
	var h message.Head
	if err := ParseRequest([]byte(typical), &h, &typicalLimits); err != nil {
		b.Fatal(err)
	}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendRequest(dst[:0], &h)
	}
}

func BenchmarkCheck(b *testing.B) {
	var h message.Head
	if err := ParseRequest([]byte(typical), &h, &typicalLimits); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := Check(&h); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAllocations(t *testing.T) {
	var h, trailers message.Head
	var d Chunked
	var dst []byte
	head, buf, get := []byte(typical), []byte(typical), []byte("GET")
	reply, rbuf := []byte(typicalAnswer), []byte(typicalAnswer)
	body := []byte("5\r\nhello\r\n0\r\ngrpc-status: 0\r\n\r\n")
	once := func() {
		copy(buf, head)
		if err := ParseRequest(buf, &h, &typicalLimits); err != nil {
			t.Fatal(err)
		}
		dst = AppendRequest(dst[:0], &h)
		copy(rbuf, reply)
		if err := ParseResponse(rbuf, &h, &typicalLimits, get); err != nil {
			t.Fatal(err)
		}
		dst = AppendResponse(dst[:0], &h)
		d.Reset(&trailers, &typicalLimits)
		for b := body; !d.Done(); {
			data, n, err := d.Next(b)
			if err != nil || n == 0 {
				t.Fatal(n, err)
			}
			dst = AppendChunk(dst, data)
			b = b[n:]
		}
		dst = AppendLastChunk(dst, &trailers)
	}
	once()
	if n := testing.AllocsPerRun(100, once); n != 0 {
		t.Errorf("%v allocations for one exchange, want 0", n)
	}
}
