package hpack

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	xhpack "golang.org/x/net/http2/hpack"

	"moire.dev/moire/proxy/message"
)

func TestHuffmanAgainstXNet(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 3000 {
		text := make([]byte, r.IntN(40))
		for i := range text {
			text[i] = byte(r.IntN(256))
			if n%2 == 0 {
				text[i] = byte(32 + r.IntN(95))
			}
		}
		code := appendHuffman(nil, text)
		if want := xhpack.AppendHuffmanString(nil, string(text)); !bytes.Equal(code, want) {
			t.Fatalf("%q is %x, want %x", text, code, want)
		}
		if huffmanLength(text) != len(code) {
			t.Fatalf("%q: %d bytes foretold, %d made", text, huffmanLength(text), len(code))
		}
		if got, ok := decodeHuffman([]byte("x"), code); !ok || string(got) != "x"+string(text) {
			t.Fatalf("%x is %q, want %q", code, got, text)
		}
		// Any bytes: both take them or both do not.
		for i := range code {
			if r.IntN(8) == 0 {
				code[i] ^= 1 << r.IntN(8)
			}
		}
		agreeHuffman(t, code)
	}
}

func agreeHuffman(t *testing.T, code []byte) {
	t.Helper()
	got, ok := decodeHuffman(nil, code)
	want, err := xhpack.HuffmanDecodeToString(code)
	if ok != (err == nil) || ok && string(got) != want {
		t.Fatalf("%x: %q %t, want %q %v", code, got, ok, want, err)
	}
}

// TestAgainstXNet: what our encoder makes, x/net's decoder and ours read, while
// the table's size changes.
func TestAgainstXNet(t *testing.T) {
	names := []string{"x-a", "x-b", "content-type", "etag", "age", "grpc-status", "traceparent", "authorization", "accept-encoding", "cookie"}
	for round := range 100 {
		r := rand.New(rand.NewPCG(uint64(round), 7))
		var e Encoder
		e.Init(uint32(r.IntN(3)) * 2048)
		var d Decoder
		d.Init()
		x := xhpack.NewDecoder(4096, nil)
		for range 60 {
			if r.IntN(5) == 0 {
				e.Limit(uint32(r.IntN(5000)))
			}
			block := e.Status(e.Begin(nil), 100+r.IntN(500))
			for range r.IntN(20) {
				name := names[r.IntN(len(names))]
				if r.IntN(3) == 0 {
					name = fmt.Sprint("x-", r.IntN(30))
				}
				value := fmt.Sprint("value", r.IntN(9))
				if r.IntN(8) == 0 {
					value = strings.Repeat(string(rune(r.IntN(256))), r.IntN(300))
				}
				block = e.Field(block, []byte(name), []byte(value), message.Known(name), r.IntN(20) == 0)
			}
			fields, err := x.DecodeFull(block)
			if err != nil {
				t.Fatalf("round %d: x/net: %v", round, err)
			}
			var want []string
			for _, f := range fields {
				line := f.Name + ": " + f.Value
				if f.Sensitive {
					line += " (never)"
				}
				want = append(want, line)
			}
			got, err := decodeText(&d, block)
			if err != nil || got != strings.Join(want, "\n") {
				t.Fatalf("round %d: %v\n%s\nwant\n%s", round, err, got, strings.Join(want, "\n"))
			}
		}
	}
}

// TestFromXNet: what x/net's encoder makes, our decoder reads.
func TestFromXNet(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var buf bytes.Buffer
	x := xhpack.NewEncoder(&buf)
	var d Decoder
	d.Init()
	for range 500 {
		buf.Reset()
		if r.IntN(6) == 0 {
			x.SetMaxDynamicTableSize(uint32(r.IntN(4097)))
		}
		var want []string
		for range r.IntN(12) {
			f := xhpack.HeaderField{Name: fmt.Sprint("x-", r.IntN(40)), Value: strings.Repeat("v", r.IntN(200)), Sensitive: r.IntN(9) == 0}
			x.WriteField(f)
			line := f.Name + ": " + f.Value
			if f.Sensitive {
				line += " (never)"
			}
			want = append(want, line)
		}
		got, err := decodeText(&d, buf.Bytes())
		if err != nil || got != strings.Join(want, "\n") {
			t.Fatalf("%v\n%s\nwant\n%s", err, got, strings.Join(want, "\n"))
		}
	}
}

// TestWhatIsIndexed: repeated fields get short, credentials and single values
// stay out of the table.
func TestWhatIsIndexed(t *testing.T) {
	var e Encoder
	e.Init(4096)
	secret := []string{"authorization", "cookie", "set-cookie", "proxy-authorization"}
	for i := range 5 {
		block := e.Begin(nil)
		for _, name := range secret {
			block = e.Field(block, []byte(name), []byte("secret"), message.Known(name), false)
		}
		block = e.Field(block, []byte("x-own"), []byte("secret"), message.Other, true)
		block = e.Field(block, []byte("x-request-id"), fmt.Append(nil, "id", i), message.XRequestID, false)
		if e.table.count() != 0 {
			t.Fatal("something entered the table")
		}
		fields, err := xhpack.NewDecoder(4096, nil).DecodeFull(block)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range fields {
			if f.Sensitive != (f.Value == "secret") {
				t.Errorf("%v", f)
			}
		}
	}
	size := []int{}
	for range 4 {
		size = append(size, len(e.Field(nil, []byte("x-repeated"), []byte("the same value"), message.Other, false)))
	}
	if size[2] != 1 || size[3] != 1 {
		t.Errorf("a repeated field takes %d bytes", size)
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name, value string
		want        Faults
	}{
		{"x-a", "", 0}, {"x-a", "b c\td", 0}, {"x-a", "\xff\x80", 0}, {"", "b", BadName}, {"X-a", "b", BadName}, {"x a", "b", BadName},
		{"x:a", "b", BadName}, {"x\x00", "b", BadName}, {"x\x7f", "b", BadName}, {"\xe9", "b", BadName}, {"x-a", " b", BadValue},
		{"x-a", "b\t", BadValue}, {"x-a", "b\rc", BadValue}, {"x-a", "b\nc", BadValue}, {"x-a", "b\x00c", BadValue},
		{"x-a", "12345678901234567\x7f", BadValue}, {"x-a", "1234567\x1f90", BadValue}, {"X-A", "\n", BadName | BadValue},
		{"content-type", "a\nb", BadValue},
	} {
		var e Encoder
		e.Init(4096)
		var d Decoder
		d.Init()
		// The third time it comes from the table.
		for range 3 {
			block := e.Field(nil, []byte(c.name), []byte(c.value), message.Known(c.name), false)
			var f Field
			d.Begin(block)
			if _, _, err := d.Next(&f, nil); err != nil || f.Faults != c.want {
				t.Errorf("%q: %q has faults %d, want %d (%v)", c.name, c.value, f.Faults, c.want, err)
			}
		}
	}
}

func TestAllocations(t *testing.T) {
	made := blocks(grpcHead, 3)
	var d Decoder
	d.Init()
	var e Encoder
	e.Init(4096)
	arena, dst, all := make([]byte, 0, 1024), make([]byte, 0, 1024), pairs(grpcHead)
	for _, m := range made {
		decodeAll(&d, arena, m)
		encodePairs(&e, dst, all)
	}
	if n := testing.AllocsPerRun(100, func() { decodeAll(&d, arena, made[0]); decodeAll(&d, arena, made[2]) }); n != 0 {
		t.Errorf("decoding allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { encodePairs(&e, dst, all) }); n != 0 {
		t.Errorf("encoding allocates %v times", n)
	}
}
