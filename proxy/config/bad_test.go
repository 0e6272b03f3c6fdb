package config_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"moire.dev/moire/proxy/config"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestBadFiles: what each wrong file is told, word for word.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("only %d wrong files, want at least 20", len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, problems := config.Parse(filepath.Base(file), text)
			if len(problems) == 0 {
				t.Fatal("nothing is wrong with it")
			}
			var out bytes.Buffer
			for _, p := range problems {
				out.WriteString(p.Error() + "\n")
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatalf("%v; run go test -update", err)
			}
			if !bytes.Equal(out.Bytes(), want) {
				t.Errorf("it is told\n%swant\n%s", out.Bytes(), want)
			}
		})
	}
}
