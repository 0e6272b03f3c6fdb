package load_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"moire.dev/moire/api/load"
	"moire.dev/moire/compile"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestBadInput: what each wrong file is told, word for word. Files that load
// are compiled too, so that Problems that show only together are covered.
func TestBadInput(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("only %d wrong files, want at least 20", len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			var out bytes.Buffer
			objects, problems := load.Files(file)
			told := len(problems)
			if told == 0 {
				_, problems = compile.Compile(compile.Offline(objects.All()...))
			}
			for _, p := range problems {
				kind := "error"
				if p.Warning {
					kind = "warning"
				}
				p = objects.Place(p)
				p.File = filepath.Base(p.File)
				out.WriteString(kind + ": " + p.Error() + "\n")
			}
			if len(problems) == 0 {
				t.Fatal("nothing is wrong with it")
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".txt", out.Bytes())
		})
	}
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run go test -update", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got\n%swant\n%s", path, got, want)
	}
}
