package check

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
)

const (
	// mostBody is how much of an answer is read, so that small ones end cleanly.
	mostBody = 64 << 10
	agent    = "moire-health"
)

// transport for one question.
func (c *Checker) transport(http2 bool) *http.Transport {
	t := &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		return c.dial(ctx, address)
	}, DisableKeepAlives: !http2, DisableCompression: true, Protocols: new(http.Protocols)}
	t.Protocols.SetHTTP1(!http2)
	t.Protocols.SetHTTP2(http2 && c.TLS != nil)
	t.Protocols.SetUnencryptedHTTP2(http2 && c.TLS == nil)
	if c.TLS != nil {
		t.TLSClientConfig = c.TLS.Clone()
		t.TLSClientConfig.NextProtos = nil
	}
	return t
}

func (c *Checker) scheme() string {
	if c.TLS != nil {
		return "https"
	}
	return "http"
}

// askHTTP: a GET is answered with one of the statuses. Redirects are not followed.
func (c *Checker) askHTTP(ctx context.Context, address string) error {
	path := cmp.Or(c.Check.Path, "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.scheme()+"://"+address+path, nil)
	if err != nil {
		return err
	}
	if c.Check.Host != "" {
		req.Host = c.Check.Host
	}
	req.Header.Set("User-Agent", agent)
	t := c.transport(c.HTTP2)
	defer t.CloseIdleConnections()
	answer, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(answer.Body, mostBody)); err != nil {
		return err
	}
	statuses := c.Check.Statuses
	if len(statuses) == 0 {
		statuses = []int{http.StatusOK}
	}
	if !slices.Contains(statuses, answer.StatusCode) {
		return fmt.Errorf("status %d, not one of %v", answer.StatusCode, statuses)
	}
	return nil
}

// serving is HealthCheckResponse.SERVING of grpc.health.v1.
const serving = 1

// askGRPC: grpc.health.v1.Health/Check answers SERVING.
func (c *Checker) askGRPC(ctx context.Context, address string) error {
	body := frame(healthRequest(c.Check.Service))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.scheme()+"://"+address+"/grpc.health.v1.Health/Check", bytes.NewReader(body))
	if err != nil {
		return err
	}
	if c.Check.Host != "" {
		req.Host = c.Check.Host
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	req.Header.Set("User-Agent", agent)
	t := c.transport(true)
	defer t.CloseIdleConnections()
	answer, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", answer.StatusCode)
	}
	message, err := io.ReadAll(io.LimitReader(answer.Body, mostBody))
	if err != nil {
		return err
	}
	// A trailers-only answer has its status among the headers.
	if status := cmp.Or(answer.Trailer.Get("Grpc-Status"), answer.Header.Get("Grpc-Status")); status != "0" {
		return fmt.Errorf("grpc-status %s: %s", status, cmp.Or(answer.Trailer.Get("Grpc-Message"), answer.Header.Get("Grpc-Message")))
	}
	status, err := healthStatus(message)
	if err != nil {
		return err
	}
	if status != serving {
		return fmt.Errorf("health is %d, not SERVING", status)
	}
	return nil
}

// healthRequest is a HealthCheckRequest: field 1 is the service.
func healthRequest(service string) []byte {
	if service == "" {
		return nil
	}
	m := binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(service)))
	return append(m, service...)
}

// frame puts gRPC's prefix before a message: not compressed, length.
func frame(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

var errMessage = errors.New("the answer is no HealthCheckResponse")

// healthStatus reads a framed HealthCheckResponse: field 1 is the status, 0 when
// it is not there; other fields are skipped.
func healthStatus(b []byte) (uint64, error) {
	if len(b) < 5 || b[0] != 0 || uint64(binary.BigEndian.Uint32(b[1:])) != uint64(len(b)-5) {
		return 0, errMessage
	}
	b = b[5:]
	status := uint64(0)
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, errMessage
		}
		b = b[n:]
		value, n := binary.Uvarint(b)
		skip := n
		switch tag & 7 {
		case 0:
		case 2:
			if n > 0 && value > uint64(len(b)-n) {
				return 0, errMessage
			}
			skip = n + int(value)
		case 1:
			n, skip = 1, 8
		case 5:
			n, skip = 1, 4
		default:
			return 0, errMessage
		}
		if n <= 0 || skip > len(b) {
			return 0, errMessage
		}
		if tag == 1<<3 {
			status = value
		}
		b = b[skip:]
	}
	return status, nil
}
