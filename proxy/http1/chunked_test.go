package http1

import (
	"strings"
	"testing"

	"moire.dev/moire/proxy/message"
)

// unchunk reads in, step bytes more at a time, and says what was not read.
func unchunk(in string, step int, trailers *message.Head) (body, rest string, done bool, err error) {
	var d Chunked
	d.Reset(trailers, &Limits{Fields: 10, Head: 2048})
	b := []byte(in)
	whole := b
	for have := 0; ; {
		data, n, err := d.Next(b[:have])
		body += string(data)
		b, have = b[n:], have-n
		if err != nil || d.Done() {
			rest = string(b)
			// Whoever owns the buffer uses it again.
			for i := range whole {
				whole[i] = '!'
			}
			return body, rest, d.Done(), err
		}
		if n == 0 {
			if have == len(b) {
				return body, string(b), false, nil
			}
			have = min(have+step, len(b))
		}
	}
}

func TestChunked(t *testing.T) {
	for _, c := range []struct{ in, body, trailers, rest string }{
		{"5\r\nhello\r\n0\r\n\r\nGET", "hello", "0", "GET"},
		{"0\r\n\r\n", "", "0", ""},
		{"00\r\n\r\n", "", "0", ""},
		{"1\r\na\r\nA\r\n0123456789\r\n0\r\n\r\n", "a0123456789", "0", ""},
		{"000000000000000F\r\n0123456789abcde\r\n0\r\n\r\n", "0123456789abcde", "0", ""},
		{"1;a=b;c=\"d \\\" ;\"\r\nx\r\n0;last\r\n\r\n", "x", "0", ""},
		{"1\r\na\r\n0\r\nGrpc-Status: 0\r\nX-Sum: 1 \r\n\r\nnext", "a", "0 grpc-status=0 x-sum=1", "next"},
		{"0\r\nAuthorization: x\r\nX-Moire-Caller: y\r\nConnection: close\r\nCookie: z\r\nOk: 1\r\n\r\n", "", "0 ok=1", ""},
	} {
		for step := 1; step <= len(c.in); step++ {
			var h message.Head
			body, rest, done, err := unchunk(c.in, step, &h)
			trailers := strings.Replace(say(&h), " ||", "0", 1)
			if err != nil || !done || body != c.body || rest != c.rest || trailers != c.trailers {
				t.Errorf("%q in steps of %d: %v, done %v, body %q, trailers %q, rest %q", c.in, step, err, done, body, trailers, rest)
			}
		}
	}
}

func TestBadChunks(t *testing.T) {
	for _, c := range []struct {
		in   string
		want error
	}{
		{"\r\n", ErrChunkSize},
		{"g\r\n", ErrChunkSize},
		{" 5\r\nhello\r\n", ErrChunkSize},
		{"5 \r\nhello\r\n", ErrChunkSize},
		{"5\t;a\r\nhello\r\n", ErrChunkSize},
		{"+5\r\nhello\r\n", ErrChunkSize},
		{"-5\r\nhello\r\n", ErrChunkSize},
		{"0x5\r\nhello\r\n", ErrChunkSize},
		{"5_0\r\nhello\r\n", ErrChunkSize},
		{"5\nhello\r\n", ErrChunkSize},
		{"5\r\r\nhello", ErrChunkSize},
		{"8000000000000000\r\n", ErrChunkSize},
		{"00000000000000005\r\nhello\r\n", ErrChunkSize},
		{"ffffffffffffffffff", ErrChunkSize},
		{"5\r\nhelloworld\r\n", ErrChunkEnd},
		{"5\r\nhello\n0\r\n\r\n", ErrChunkEnd},
		{"5\r\nhello\r0\r\n\r\n", ErrChunkEnd},
		{"5\r\nhello0\r\n\r\n", ErrChunkEnd},
		{"5;\r\nhello\r\n", ErrChunkExtension},
		{"5;a b\r\nhello\r\n", ErrChunkExtension},
		{"5; a\r\nhello\r\n", ErrChunkExtension},
		{"5;a=\r\nhello\r\n", ErrChunkExtension},
		{"5;a=\"b\r\nhello\r\n", ErrChunkExtension},
		{"5;a=\"\x00\"\r\nhello\r\n", ErrChunkExtension},
		{"5;a\x00\r\nhello\r\n", ErrChunkExtension},
		{"5;a\rb\r\nhello\r\n", ErrChunkExtension},
		{"5;a=" + strings.Repeat("b", MaxChunkLine) + "\r\n", ErrChunkExtension},
		{strings.Repeat("1;"+strings.Repeat("a", 500)+"\r\nx\r\n", 40), ErrChunkExtension},
		{"0\r\nContent-Length: 5\r\n\r\n", ErrTrailer},
		{"0\r\nTransfer-Encoding: chunked\r\n\r\n", ErrTrailer},
		{"0\r\nHost: a\r\n\r\n", ErrTrailer},
		{"0\r\nX : a\r\n\r\n", ErrFieldName},
		{"0\r\n X: a\r\n\r\n", ErrFieldName},
		{"0\r\nX: a\r\n b\r\n\r\n", ErrFold},
		{"0\r\n\n", ErrFieldName},
		{"0\r\nX: a\n\r\n", ErrFieldValue},
		{"0\r\n" + strings.Repeat("X: a\r\n", 11) + "\r\n", ErrTooManyFields},
		{"0\r\nX: " + strings.Repeat("a", 3000), ErrHeadTooLarge},
	} {
		for _, step := range []int{1, 7, len(c.in)} {
			if body, _, done, err := unchunk(c.in, step, nil); err != c.want || done {
				t.Errorf("%.60q in steps of %d: %v, want %v; done %v, body %q", c.in, step, err, c.want, done, body)
			}
		}
	}
}

func TestWriteChunks(t *testing.T) {
	trailers := message.Head{Fields: []message.Field{{Name: []byte("x"), Value: []byte("y")}}}
	w := AppendChunk(nil, []byte("0123456789abcdef"))
	w = AppendLastChunk(AppendChunk(w, nil), &trailers)
	if want := "10\r\n0123456789abcdef\r\n0\r\nx: y\r\n\r\n"; string(w) != want {
		t.Errorf("wrote %q, want %q", w, want)
	}
	if got := len(AppendChunkHeader(nil, 1<<63-1)); got != MaxChunkHeader {
		t.Errorf("a chunk header of %d bytes, MaxChunkHeader is %d", got, MaxChunkHeader)
	}
}
