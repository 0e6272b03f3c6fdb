package hpack

import (
	"testing"

	xhpack "golang.org/x/net/http2/hpack"

	"moire.dev/moire/proxy/message"
)

// grpcHead is what grpc-go sends for a unary call, with trace context.
var grpcHead = [][2]string{
	{":method", "POST"}, {":scheme", "http"}, {":path", "/helloworld.Greeter/SayHello"},
	{":authority", "greeter.default.svc.cluster.local:50051"}, {"content-type", "application/grpc"},
	{"user-agent", "grpc-go/1.85.0"}, {"te", "trailers"}, {"grpc-timeout", "4998m"},
	{"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
	{"x-request-id", "0b54e1c2-5d4f-4e57-9f0e-6d9a1b2c3d4e"},
}

type pair struct {
	name, value []byte
	id          message.ID
	pseudo      Pseudo
}

func pairs(head [][2]string) []pair {
	var all []pair
	for _, f := range head {
		all = append(all, pair{[]byte(f[0]), []byte(f[1]), message.Known(f[0]), pseudoOf(f[0])})
	}
	return all
}

func encodePairs(e *Encoder, dst []byte, all []pair) []byte {
	dst = e.Begin(dst)
	for i := range all {
		if p := &all[i]; p.pseudo != Regular {
			dst = e.Pseudo(dst, p.pseudo, p.value)
		} else {
			dst = e.Field(dst, p.name, p.value, p.id, false)
		}
	}
	return dst
}

// blocks are the n blocks that an encoder makes of a head.
func blocks(head [][2]string, n int) [][]byte {
	var e Encoder
	e.Init(4096)
	var all [][]byte
	for range n {
		all = append(all, encodePairs(&e, nil, pairs(head)))
	}
	return all
}

func decodeAll(d *Decoder, arena, block []byte) ([]byte, error) {
	d.Begin(block)
	var f Field
	for d.More() {
		var err error
		if arena, _, err = d.Next(&f, arena); err != nil {
			return arena, err
		}
	}
	return arena, nil
}

func BenchmarkDecode(b *testing.B) {
	made := blocks(grpcHead, 3)
	for _, c := range []struct {
		name  string
		block []byte
	}{{"first", made[0]}, {"warm", made[2]}} {
		b.Run(c.name, func(b *testing.B) {
			var d Decoder
			d.Init()
			arena := make([]byte, 0, 1024)
			for _, m := range made {
				decodeAll(&d, arena, m)
			}
			b.ReportAllocs()
			for b.Loop() {
				decodeAll(&d, arena, c.block)
			}
		})
		b.Run(c.name+"-xnet", func(b *testing.B) {
			d := xhpack.NewDecoder(4096, func(xhpack.HeaderField) {})
			for _, m := range made {
				d.Write(m)
				d.Close()
			}
			b.ReportAllocs()
			for b.Loop() {
				d.Write(c.block)
				d.Close()
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	all := pairs(grpcHead)
	dst := make([]byte, 0, 1024)
	b.Run("warm", func(b *testing.B) {
		var e Encoder
		e.Init(4096)
		b.ReportAllocs()
		for b.Loop() {
			dst = encodePairs(&e, dst[:0], all)
		}
	})
	b.Run("changing", func(b *testing.B) {
		var e Encoder
		e.Init(4096)
		b.ReportAllocs()
		id, trace := all[9].value, all[8].value
		for b.Loop() {
			for i := range 8 {
				id[i] = 'a' + (id[i]+byte(i)+1)%16
				trace[10+i] = id[i]
			}
			dst = encodePairs(&e, dst[:0], all)
		}
	})
}

func BenchmarkHuffman(b *testing.B) {
	text := []byte("/helloworld.Greeter/SayHello?with=some&more=00-4bf92f3577b34da6a3ce929d0e0e4736")
	code := appendHuffman(nil, text)
	dst := make([]byte, 0, 1024)
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			decodeHuffman(dst, code)
		}
	})
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			appendHuffman(dst, text)
		}
	})
}
