package tls

import (
	"bytes"
	stdtls "crypto/tls"
	"reflect"
	"unsafe"
)

// crypto/tls keeps the memory of the largest record and handshake message that
// came, up to 18 KiB for each connection, and has no way to give it back. So
// its two buffers, and the reader of what was decrypted in the first of them, are
// looked up by name; where another version of Go has none of that name and type,
// they are left alone, and a test says so.
var (
	rawInput = offsetOf[bytes.Buffer]("rawInput")
	handMsgs = offsetOf[bytes.Buffer]("hand")
	input    = offsetOf[bytes.Reader]("input")
)

const nowhere = ^uintptr(0)

func offsetOf[T any](name string) uintptr {
	f, ok := reflect.TypeFor[stdtls.Conn]().FieldByName(name)
	if !ok || f.Type != reflect.TypeFor[T]() {
		return nowhere
	}
	return f.Offset
}

// shrink gives back the memory of c's buffers that are empty. Nobody uses c
// meanwhile, and all plaintext was read from it.
func shrink(c *stdtls.Conn) {
	for _, offset := range [...]uintptr{rawInput, handMsgs} {
		if offset == nowhere {
			continue
		}
		b := (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), offset))
		if b.Len() == 0 && b.Cap() > 0 {
			*b = bytes.Buffer{}
		}
	}
	if input != nowhere {
		if r := (*bytes.Reader)(unsafe.Add(unsafe.Pointer(c), input)); r.Len() == 0 {
			*r = bytes.Reader{}
		}
	}
}
