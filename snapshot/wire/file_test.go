package wire

import (
	"bytes"
	"crypto/sha256"
	"testing"
)

// FuzzReadFile gives every input the right checksum, so that what is behind it
// is reached.
func FuzzReadFile(f *testing.F) {
	var good bytes.Buffer
	if err := Write(&good, big(3)); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes()[:good.Len()-sha256.Size])
	f.Add([]byte(fileMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		sum := sha256.Sum256(b)
		s, err := Read(append(bytes.Clone(b), sum[:]...))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := Write(&again, s); err != nil {
			t.Fatal(err)
		}
		if back, err := Read(again.Bytes()); err != nil || back.Version() != s.Version() {
			t.Fatalf("%v %v", back, err)
		}
	})
}
