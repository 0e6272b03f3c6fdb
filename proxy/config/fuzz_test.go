package config_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"moire.dev/moire/proxy/config"
)

// FuzzParse: no text makes it panic or hang; every Problem says where and what
// to do; what is accepted is valid, and is the same after it was written.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.yaml", "../../examples/proxy/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("a: &a [1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nlisteners: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nroutes: [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg, problems := config.Parse("fuzz.yaml", text)
		for _, p := range problems {
			if p.Reason == "" || strings.ContainsAny(p.Reason, "\n\r") || p.File != "fuzz.yaml" || p.Line < 0 {
				t.Fatalf("a Problem that does not help: %+v", p)
			}
		}
		if len(problems) > 100 {
			t.Fatalf("%d problems", len(problems))
		}
		if len(problems) > 0 {
			return
		}
		if p := cfg.Validate(); len(p) > 0 {
			t.Fatalf("accepted, but %v", p)
		}
		again, err := json.Marshal(cfg)
		if err != nil {
			t.Fatal(err)
		}
		got, problems := config.Parse("again.json", again)
		if len(problems) > 0 || !reflect.DeepEqual(got, cfg) {
			t.Fatalf("%s is not the same when it is read again: %v", again, problems)
		}
	})
}
