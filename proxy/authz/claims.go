package authz

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4/json"
)

// Bounds of what a token says.
const (
	maxClaims = 512 // values
	maxDepth  = 8   // of objects in objects
	maxName   = 512 // bytes, with the names of the objects around it
)

// claims are what a token says, by name; what is inside of an object has the
// name of the object, a dot and its own. A claim without values is there with an
// empty list.
type claims map[string][]string

var errTwice = errors.New("something follows the JSON")

// decode reads one JSON value, of numbers the text. No object may have two
// members of one name: which one counts would be a matter of taste.
func decode(b []byte, into any) error {
	if !shallow(b) {
		return errors.New("JSON is nested too deeply")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.SetNumberType(json.UnmarshalJSONNumber)
	if err := d.Decode(into); err != nil {
		return err
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return errTwice
	}
	return nil
}

// shallow says whether JSON is nested no deeper than anything useful is.
func shallow(b []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > 4*maxDepth {
				return false
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return true
}

// readClaims flattens the payload of a token.
func readClaims(payload []byte) (claims, error) {
	var all map[string]any
	if err := decode(payload, &all); err != nil {
		return nil, err
	}
	f := flattener{out: claims{}}
	for name, v := range all {
		if text, is := v.(string); is && (name == "scope" || name == "scp") {
			// RFC 8693 4.2: a list, written as one text.
			f.out[name] = append([]string{}, strings.Fields(text)...)
			continue
		}
		if err := f.add(name, v, 1); err != nil {
			return nil, err
		}
	}
	for _, values := range f.out {
		slices.Sort(values) // objects have no order
	}
	return f.out, nil
}

type flattener struct {
	out    claims
	values int
}

func (f *flattener) add(name string, v any, depth int) error {
	if f.values++; f.values > maxClaims || depth > maxDepth || len(name) > maxName {
		return errors.New("the token says too much")
	}
	switch v := v.(type) {
	case nil:
		return nil
	case string:
		f.out[name] = append(f.out[name], v)
	case bool, json.Number:
		f.out[name] = append(f.out[name], fmt.Sprint(v))
	case []any:
		f.there(name)
		for _, e := range v {
			if err := f.add(name, e, depth+1); err != nil {
				return err
			}
		}
	case map[string]any:
		f.there(name)
		for k, e := range v {
			if err := f.add(name+"."+k, e, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// there notes that a claim exists, whatever is in it.
func (f *flattener) there(name string) {
	if f.out[name] == nil {
		f.out[name] = []string{}
	}
}

// size is how many bytes of memory the claims take, about.
func (c claims) size() int {
	n := 64
	for name, values := range c {
		n += 64 + len(name)
		for _, v := range values {
			n += 16 + len(v)
		}
	}
	return n
}
