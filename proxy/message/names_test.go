package message

import "testing"

func TestKnownNames(t *testing.T) {
	for id := Host; id < last; id++ {
		if names[id] == "" {
			t.Errorf("id %d has no name", id)
		}
		if got := Identify([]byte(names[id])); got != id {
			t.Errorf("Identify(%q) = %v, want %v", names[id], got, id)
		}
		if got := Known(id.String()); got != id {
			t.Errorf("Known(%q) = %v, want %v", names[id], got, id)
		}
	}
	for _, name := range []string{"", "x", "hosts", "content-lengtH", "x-custom"} {
		if got := Known(name); got != Other {
			t.Errorf("Known(%q) = %v, want Other", name, got)
		}
	}
}
