package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"k8s.io/client-go/rest"
)

// maxBody bounds what one answer may hold, in bytes.
const maxBody = 1 << 30

// Client sends requests to one API server as one user. Safe for concurrent use.
type Client struct {
	// Server is the base URL, such as https://127.0.0.1:7443.
	Server string
	// Namespace is the project of requests that name none.
	Namespace string
	// Origin says where the configuration came from, for error texts.
	Origin string
	// Warn receives the warnings of the server, possibly several at once; nil
	// drops them.
	Warn func(text string)

	http    *http.Client
	timeout time.Duration
	agent   string
	found   catalog
}

// Request is one HTTP request. Path starts with a slash.
type Request struct {
	Method string // default GET
	Path   string
	Query  url.Values
	Accept string // default application/json
	Type   string // content type of Body
	Body   []byte
}

// Answer is the answer to a Request that succeeded.
type Answer struct {
	Code   int
	Body   []byte
	Header http.Header
}

// New makes a Client from a client-go configuration. A timeout of 0 means no
// limit.
func New(config *rest.Config, timeout time.Duration, agent string) (*Client, error) {
	config = rest.CopyConfig(config)
	config.Timeout = 0
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("the credentials for %s cannot be used: %w", config.Host, err)
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("the server address %q is not a URL: %w", config.Host, err)
	}
	// A redirect could carry credentials to somebody else.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{
		Server:  strings.TrimSuffix(base.String(), "/"),
		http:    client,
		timeout: timeout,
		agent:   agent,
	}, nil
}

// Do sends r and reads the whole answer within the request timeout.
func (c *Client) Do(ctx context.Context, r Request) (*Answer, error) {
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	resp, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := readAll(resp)
	if err != nil {
		return nil, c.lost(ctx, err)
	}
	return &Answer{Code: resp.StatusCode, Body: body, Header: resp.Header}, nil
}

// Stream sends r and hands over the body; the caller closes it. Only ctx ends
// it, the request timeout does not.
func (c *Client) Stream(ctx context.Context, r Request) (io.ReadCloser, http.Header, error) {
	resp, err := c.send(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	return resp.Body, resp.Header, nil
}

func (c *Client) send(ctx context.Context, r Request) (*http.Response, error) {
	req, err := c.request(ctx, r)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.lost(ctx, err)
	}
	if c.Warn != nil {
		for _, w := range resp.Header.Values("Warning") {
			c.Warn(warningText(w))
		}
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, c.lost(ctx, err)
	}
	return nil, refusal(req.Method, r.Path, resp.StatusCode, body)
}

func (c *Client) request(ctx context.Context, r Request) (*http.Request, error) {
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	target := c.Server + r.Path
	if len(r.Query) > 0 {
		target += "?" + r.Query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(r.Body))
	if err != nil {
		return nil, fmt.Errorf("request %s %s: %w", method, r.Path, err)
	}
	accept := r.Accept
	if accept == "" {
		accept = "application/json"
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("User-Agent", c.agent)
	if r.Type != "" {
		req.Header.Set("Content-Type", r.Type)
	}
	return req, nil
}

// readAll reads the body; it uses Content-Length to allocate once.
func readAll(resp *http.Response) ([]byte, error) {
	var buf bytes.Buffer
	if n := resp.ContentLength; n > 0 && n < maxBody {
		buf.Grow(int(n) + bytes.MinRead)
	}
	n, err := buf.ReadFrom(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, err
	}
	if n > maxBody {
		return nil, errors.New("the answer is larger than 1 GiB; narrow it with -n, -l or a name")
	}
	return buf.Bytes(), nil
}

// warningText takes the text out of `299 - "text"`.
func warningText(header string) string {
	_, quoted, ok := strings.Cut(header, "\"")
	if !ok {
		return header
	}
	if end := strings.LastIndex(quoted, "\""); end >= 0 {
		quoted = quoted[:end]
	}
	return strings.ReplaceAll(quoted, `\"`, `"`)
}
