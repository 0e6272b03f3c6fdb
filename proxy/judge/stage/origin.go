package stage

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Seen is what the origin saw of a request; /echo answers it.
type Seen struct {
	Method  string              `json:"method"`
	Target  string              `json:"target"`
	Host    string              `json:"host"`
	Proto   string              `json:"proto"`
	Header  map[string][]string `json:"header"`
	Trailer map[string][]string `json:"trailer,omitempty"`
	Length  int                 `json:"length"`
	SHA256  string              `json:"sha256"`
	Framing string              `json:"framing"`
}

// Origin starts a back end in a process of its own, which speaks HTTP/1.1 and
// HTTP/2 without TLS, and is its address.
func (s *Stage) Origin(ctx context.Context, placing Placing) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	address := s.Address()
	command := append(placing[:len(placing):len(placing)], self, "origin", address)
	p, err := s.Run(ctx, command[0], command[1:]...)
	if err != nil {
		return "", err
	}
	return address, p.Await(address)
}

// ServeOrigin is the back end itself. It serves until its process is ended.
func ServeOrigin(address string) error {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Addr: address, Handler: originMux(), Protocols: &protocols, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1000}}
	return server.ListenAndServe()
}

func originMux() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // how much arrives is the caller's affair
		fmt.Fprint(w, "this is the origin\n")
	})
	m.HandleFunc("/echo", echo)
	m.HandleFunc("/bytes/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.PathValue("n"))
		if err != nil || n < 0 || n > 1<<30 {
			http.Error(w, "a number of bytes up to 1 GiB", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("ETag", fmt.Sprintf(`"b%d"`, n))
		http.ServeContent(w, r, "", time.Unix(1e9, 0), &pattern{size: int64(n)})
	})
	m.HandleFunc("/chunked/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.PathValue("n"))
		for i := range min(n, 1000) {
			fmt.Fprintf(w, "part %d\n", i)
			_ = http.NewResponseController(w).Flush() // a caller that left is seen at the end
		}
	})
	m.HandleFunc("/trailers", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Checksum")
		fmt.Fprint(w, "body before trailers\n")
		w.Header().Set("X-Checksum", "c0ffee")
	})
	m.HandleFunc("/hints", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		fmt.Fprint(w, "after the hints\n")
	})
	m.HandleFunc("/gzip", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Vary", "Accept-Encoding")
		_, _ = w.Write(gzipped()) // a caller that left is none of our business
	})
	m.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.PathValue("code"))
		if err != nil || code < 200 || code > 599 {
			code = http.StatusBadRequest
		}
		w.WriteHeader(code)
	})
	m.HandleFunc("/sleep/{ms}", func(w http.ResponseWriter, r *http.Request) {
		ms, _ := strconv.Atoi(r.PathValue("ms"))
		select {
		case <-time.After(time.Duration(min(ms, 60000)) * time.Millisecond):
		case <-r.Context().Done():
		}
		fmt.Fprint(w, "slept\n")
	})
	m.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/echo", http.StatusFound) })
	m.HandleFunc("/cookies", func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Set-Cookie"] = []string{"a=1; Path=/", "b=2; Path=/; HttpOnly"}
		fmt.Fprint(w, "two cookies\n")
	})
	var fails sync.Map
	m.HandleFunc("/flaky/{key}", func(w http.ResponseWriter, r *http.Request) {
		if _, again := fails.LoadOrStore(r.PathValue("key"), true); !again {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, "well the second time\n")
	})
	return m
}

func echo(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		return // the caller broke off
	}
	framing := fmt.Sprint("length ", r.ContentLength)
	if len(r.TransferEncoding) > 0 {
		framing = strings.Join(r.TransferEncoding, ",")
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(Seen{Method: r.Method, Target: r.RequestURI, Host: r.Host, Proto: r.Proto, Header: r.Header, Trailer: r.Trailer,
		Length: int(n), SHA256: hex.EncodeToString(sum.Sum(nil)), Framing: framing})
}

// pattern is size bytes that differ from place to place.
type pattern struct{ size, at int64 }

func (p *pattern) Read(b []byte) (int, error) {
	if p.at >= p.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), p.size-p.at))
	for i := range b[:n] {
		x := p.at + int64(i)
		b[i] = byte(x ^ x>>8 ^ x>>16*7)
	}
	p.at += int64(n)
	return n, nil
}

func (p *pattern) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
		p.at = offset
	case io.SeekCurrent:
		p.at += offset
	case io.SeekEnd:
		p.at = p.size + offset
	}
	return p.at, nil
}

// PatternSum is the SHA-256 of bytes from to (exclusive) of what /bytes answers.
func PatternSum(from, to int64) string {
	sum := sha256.New()
	_, _ = io.Copy(sum, &pattern{size: to, at: from}) // neither fails
	return hex.EncodeToString(sum.Sum(nil))
}

// Pattern is the first n bytes of what /bytes answers.
func Pattern(n int64) io.Reader { return &pattern{size: n} }

func gzipped() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	fmt.Fprint(z, strings.Repeat("compressed by the origin\n", 100))
	z.Close()
	return b.Bytes()
}

// GzipSum is the SHA-256 of the body of /gzip, as it is sent.
func GzipSum() string {
	sum := sha256.Sum256(gzipped())
	return hex.EncodeToString(sum[:])
}
