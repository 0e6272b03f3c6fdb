package hpack

import (
	"bytes"
	"testing"

	xhpack "golang.org/x/net/http2/hpack"

	"moire.dev/moire/proxy/message"
)

// FuzzDecoder feeds two blocks to a decoder: x/net has to find the same fields,
// and what was found has to survive our encoder.
func FuzzDecoder(f *testing.F) {
	made := blocks(grpcHead, 3)
	f.Add(made[0], made[2])
	f.Add([]byte{0x20, 0x82, 0x40, 1, 'a', 1, 'b', 0xbe}, []byte{0x3f, 0xe1, 0x1f, 0xbe})
	f.Add([]byte{0x40, 0x82, 0x1d, 0x7f, 0x00}, []byte{0xff, 0x80, 0x01})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var d Decoder
		d.Init()
		x := xhpack.NewDecoder(4096, nil)
		var e Encoder
		e.Init(4096)
		var again Decoder
		again.Init()
		for _, block := range [][]byte{one, two} {
			fields, err := x.DecodeFull(block)
			d.Begin(block)
			var arena []byte
			i := 0
			for d.More() {
				var field Field
				var found bool
				var ours error
				if arena, found, ours = d.Next(&field, arena); ours != nil {
					if err == nil && !stricter(ours) {
						t.Fatalf("%x: we say %v", block, ours)
					}
					return
				}
				if !found {
					break
				}
				if len(arena) > 5000*len(block) {
					t.Fatal("the arena grows too far")
				}
				if err != nil {
					continue
				}
				if f := fields[i]; f.Name != string(field.Name) || f.Value != string(field.Value) || f.Sensitive != field.Never {
					t.Fatalf("%x: field %d is %q %q, want %v", block, i, field.Name, field.Value, f)
				}
				i++
				pass(t, &e, &again, &field)
			}
			if err != nil || i != len(fields) {
				t.Fatalf("%x: %d fields, want %d, %v", block, i, len(fields), err)
			}
		}
	})
}

// stricter: x/net takes larger integers and more size updates than we do.
func stricter(err error) bool { return err == ErrInteger || err == ErrResize || err == ErrString }

func pass(t *testing.T, e *Encoder, d *Decoder, f *Field) {
	if f.Pseudo != Regular {
		return
	}
	block := e.Field(e.Begin(nil), f.Name, f.Value, message.Identify(f.Name), f.Never)
	var got Field
	d.Begin(block)
	if _, _, err := d.Next(&got, nil); err != nil || !bytes.Equal(got.Name, f.Name) || !bytes.Equal(got.Value, f.Value) || got.Faults != f.Faults {
		t.Fatalf("%q %q becomes %q %q (%v)", f.Name, f.Value, got.Name, got.Value, err)
	}
}

func FuzzHuffman(f *testing.F) {
	f.Add([]byte{0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff})
	f.Fuzz(func(t *testing.T, code []byte) { agreeHuffman(t, code) })
}
