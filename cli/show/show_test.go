package show

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"text/tabwriter"

	"moire.dev/moire/cli/fault"
)

// The measures are those of kubectl, which uses tabwriter with these numbers.
func TestGridIsAlignedLikeKubectl(t *testing.T) {
	g := &Grid{Header: []string{"NAME", "V", "LAST"}, Rows: [][]string{{"a", "", "x"}, {"long-name", "123456", ""}, {"ünï", "1", "y"}}}
	var ours, theirs bytes.Buffer
	if err := g.Write(&ours, true, nil); err != nil {
		t.Fatal(err)
	}
	w := tabwriter.NewWriter(&theirs, 6, 4, 3, ' ', 0)
	for _, row := range append([][]string{g.Header}, g.Rows...) {
		w.Write([]byte(strings.Join(row, "\t") + "\n"))
	}
	w.Flush()
	if ours.String() != theirs.String() {
		t.Errorf("got\n%swant\n%s", &ours, &theirs)
	}
}

func TestLaterRowsKeepTheirColumns(t *testing.T) {
	g := &Grid{Header: []string{"A", "B"}, Rows: [][]string{{"1", "2"}}}
	widths := g.Widths(true)
	g.Rows = [][]string{{"much-too-long", "3"}, {"4", "5"}}
	var b bytes.Buffer
	if err := g.WriteAt(&b, widths, false, nil); err != nil {
		t.Fatal(err)
	}
	if want := "much-too-long   3\n4     5\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

// What a tenant writes into a field must not reach the terminal of another as
// a command.
func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"ok ü": "ok ü", "a\x1b[31mb": "a^[[31mb", "\a\x7f": "^G^?", "\u009b2J": "^?2J", "a\tb": "a^Ib",
	} {
		if got := Plain(in); got != want {
			t.Errorf("Plain(%q) = %q, want %q", in, got, want)
		}
	}
	if got := cellText("one\ntwo"); got != "one..." {
		t.Errorf("%q", got)
	}
}

func TestCells(t *testing.T) {
	for _, c := range []struct {
		in   any
		want string
	}{{nil, ""}, {"x", "x"}, {float64(5000001), "5000001"}, {1.5, "1.5"}, {true, "true"}} {
		if got := cellText(c.in); got != c.want {
			t.Errorf("%v is %q, want %q", c.in, got, c.want)
		}
	}
}

func TestReadTableRefuses(t *testing.T) {
	for _, body := range []string{"", "{", `{"kind":"NetworkList","items":[]}`} {
		if _, err := ReadTable([]byte(body)); err == nil {
			t.Errorf("%q was read", body)
		}
	}
}

func TestFormats(t *testing.T) {
	for flag, ok := range map[string]bool{
		"": true, "wide": true, "json": true, "yaml": true, "name": false, "xml": false, "jsonpath={.a}": true,
		"jsonpath=.a": true, "jsonpath=a.b": true, "jsonpath": false, "jsonpath={.a": false, "json=x": false,
	} {
		_, err := ParseFormat(flag, Wide, JSON, YAML, JSONPath)
		if (err == nil) != ok {
			t.Errorf("-o %s: %v", flag, err)
		}
		if err != nil && fault.Code(err) != fault.Usage {
			t.Errorf("-o %s: code %d", flag, fault.Code(err))
		}
	}
}

func TestWriteKeepsNumbers(t *testing.T) {
	value, err := Decode([]byte(`{"a":{"big":9007199254740993,"f":1.5,"s":"<&>"},"l":[1]}`))
	if err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string]string{
		JSON: "{\n    \"a\": {\n        \"big\": 9007199254740993,\n        \"f\": 1.5,\n        \"s\": \"<&>\"\n    },\n    \"l\": [\n        1\n    ]\n}\n",
		YAML: "a:\n  big: 9007199254740993\n  f: 1.5\n  s: <&>\nl:\n- 1\n",
	} {
		var b bytes.Buffer
		if err := (Format{Kind: kind}).Write(&b, value); err != nil || b.String() != want {
			t.Errorf("%s: %v\n%s", kind, err, &b)
		}
	}
	var b bytes.Buffer
	if err := (Format{Kind: JSONPath, Template: "{.a.big} {.absent}{.l[0]}"}).Write(&b, value); err != nil || b.String() != "9007199254740993 1" {
		t.Error(err, b.String())
	}
	if err := (Format{Kind: JSONPath, Template: "{.l[5]}"}).Write(&b, value); err == nil {
		t.Error("an index outside the list was accepted")
	}
}

func TestHideManagedFields(t *testing.T) {
	value, err := Decode([]byte(`{"metadata":{"managedFields":[1],"name":"l"},"items":[{"metadata":{"managedFields":[1],"name":"a"}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	HideManagedFields(value)
	body, err := json.Marshal(value)
	if err != nil || strings.Contains(string(body), "managedFields") || !strings.Contains(string(body), `"name":"a"`) {
		t.Error(string(body), err)
	}
}

func TestColourOnlyOnTerminals(t *testing.T) {
	env := func(string) string { return "" }
	if PaintFor(&bytes.Buffer{}, env).On {
		t.Error("a buffer is no terminal")
	}
	var plain, on Paint
	on.On = true
	for _, word := range []string{"Ready", "Failing", "Stale", "x", ""} {
		if plain.Cell("", word) != word || plain.Diff(word) != word {
			t.Errorf("%q is coloured", word)
		}
	}
	if on.Cell("", "Ready") == "Ready" || on.Cell("", "x") != "x" || on.Diff("+a") == "+a" || on.Diff(" a") != " a" {
		t.Error("nothing is coloured")
	}
}
