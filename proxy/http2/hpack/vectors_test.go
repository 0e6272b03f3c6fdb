package hpack

import (
	"encoding/hex"
	"strings"
	"testing"
)

// vectors are the examples of RFC 7541, Appendix C. The blocks of a sequence go
// through one decoder.
var vectors = []struct {
	name   string
	table  uint32
	blocks []vector
}{
	{"C.2.1", 4096, []vector{{"400a637573746f6d2d6b65790d637573746f6d2d686561646572", "custom-key: custom-header", 55}}},
	{"C.2.2", 4096, []vector{{"040c2f73616d706c652f70617468", ":path: /sample/path", 0}}},
	{"C.2.3", 4096, []vector{{"100870617373776f726406736563726574", "password: secret (never)", 0}}},
	{"C.2.4", 4096, []vector{{"82", ":method: GET", 0}}},
	{"C.3", 4096, []vector{
		{"828684410f7777772e6578616d706c652e636f6d", request1, 57},
		{"828684be58086e6f2d6361636865", request2, 110},
		{"828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565", request3, 164},
	}},
	{"C.4", 4096, []vector{
		{"828684418cf1e3c2e5f23a6ba0ab90f4ff", request1, 57},
		{"828684be5886a8eb10649cbf", request2, 110},
		{"828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", request3, 164},
	}},
	{"C.5", 256, []vector{
		{"4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54" +
			"6e1768747470733a2f2f7777772e6578616d706c652e636f6d", answer1, 222},
		{"4803333037c1c0bf", answer2, 222},
		{"88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b" +
			"48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31", answer3, 215},
	}},
	{"C.6", 256, []vector{
		{"488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
			answer1, 222},
		{"4883640effc1c0bf", answer2, 222},
		{"88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af2708" +
			"7f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007", answer3, 215},
	}},
}

type vector struct {
	block  string
	fields string
	size   uint32 // of the table afterwards
}

const (
	request1 = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com"
	request2 = request1 + "\ncache-control: no-cache"
	request3 = ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\ncustom-key: custom-value"
	answer1  = ":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com"
	answer2  = ":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com"
	answer3  = ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\nlocation: https://www.example.com\n" +
		"content-encoding: gzip\nset-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
)

func TestVectors(t *testing.T) {
	for _, v := range vectors {
		var d Decoder
		d.Init()
		d.table.setMax(v.table)
		for i, b := range v.blocks {
			block, err := hex.DecodeString(b.block)
			if err != nil {
				t.Fatal(err)
			}
			fields, err := decodeText(&d, block)
			if err != nil || fields != b.fields || d.table.size != b.size {
				t.Errorf("%s, block %d: %v, table of %d, want %d\n%s", v.name, i+1, err, d.table.size, b.size, fields)
			}
		}
	}
}

// decodeText decodes a block into lines.
func decodeText(d *Decoder, block []byte) (string, error) {
	var lines []string
	var arena []byte
	d.Begin(block)
	for d.More() {
		var f Field
		var found bool
		var err error
		if arena, found, err = d.Next(&f, arena); err != nil {
			return "", err
		}
		if !found {
			break
		}
		line := string(f.Name) + ": " + string(f.Value)
		if f.Never {
			line += " (never)"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n"), nil
}

// TestIntegers has the examples of Appendix C.1, and limits.
func TestIntegers(t *testing.T) {
	for _, c := range []struct {
		n      uint32
		prefix uint
		code   string
	}{{10, 5, "0a"}, {1337, 5, "1f9a0a"}, {42, 8, "2a"}, {0, 4, "00"}, {15, 4, "0f00"}, {1 << 28, 7, "7f81ffff7f"}} {
		code := appendInteger(nil, 0, c.prefix, c.n)
		if got := hex.EncodeToString(code); got != c.code {
			t.Errorf("%d with %d bits is %s, want %s", c.n, c.prefix, got, c.code)
		}
		d := Decoder{block: code}
		if n, ok := d.integer(c.prefix); !ok || n != c.n || len(d.block) != 0 {
			t.Errorf("%s is %d, %t", c.code, n, ok)
		}
	}
	for _, code := range []string{"7f", "7f80", "7f8080808080", "7fffffffffff0f", "7f808080800100", "7f82ffff7f", "7fffffffff7f"} {
		block, _ := hex.DecodeString(code)
		d := Decoder{block: block}
		if n, ok := d.integer(7); ok {
			t.Errorf("%s is taken as %d", code, n)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		block string
		want  error
	}{
		{"80", ErrIndex}, {"be", ErrIndex}, {"7e00", ErrIndex}, {"0f2f00", ErrIndex},
		{"ff", ErrInteger}, {"40", ErrString}, {"4001", ErrString}, {"400161", ErrString}, {"40016102ff", ErrString},
		{"4081ff", ErrHuffman}, {"408100", ErrHuffman}, {"4084ffffffff", ErrHuffman},
		{"3fe21f", ErrResize}, {"8220", ErrResize}, {"20", nil}, {"3fe11f82", nil}, {"2020203fe11f", nil},
	} {
		block, err := hex.DecodeString(c.block)
		if err != nil {
			t.Fatal(err)
		}
		var d Decoder
		d.Init()
		if _, err := decodeText(&d, block); err != c.want {
			t.Errorf("%s: %v, want %v", c.block, err, c.want)
		}
	}
}

// TestResizeIsDue: once the peer agreed to less, it has to say so (4.2).
func TestResizeIsDue(t *testing.T) {
	var d Decoder
	d.Init()
	d.Limit(100)
	if _, err := decodeText(&d, []byte{0x82}); err != ErrResize {
		t.Errorf("a block without the size update: %v", err)
	}
	d.Init()
	d.Limit(100)
	if _, err := decodeText(&d, appendInteger(nil, 0x20, 5, 101)); err != ErrResize {
		t.Errorf("a size update above the limit: %v", err)
	}
	d.Init()
	d.Limit(100)
	if _, err := decodeText(&d, append(appendInteger(nil, 0x20, 5, 100), 0x82)); err != nil {
		t.Errorf("a size update at the limit: %v", err)
	}
}
