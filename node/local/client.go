package local

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"syscall"

	"moire.dev/moire/flow/record"
)

// ErrNotFound: the agent knows no such attachment.
var ErrNotFound = errors.New("not found")

// ErrInvalid: the request can never be done as it is.
var ErrInvalid = errors.New("not valid")

// ErrAway: no agent answers at the socket.
var ErrAway = errors.New("the agent of the node does not answer")

// Socket is the path of the socket of a node.
func Socket(runDir, node string) string { return filepath.Join(runDir, node+".sock") }

// Sockets lists the sockets of all nodes of this machine, sorted.
func Sockets(runDir string) ([]string, error) { return filepath.Glob(filepath.Join(runDir, "*.sock")) }

// Client talks to one agent. Safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a Client of the agent at the socket. It connects at the
// first call.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Attach asks for interfaces and waits until policy is in force for them.
func (c *Client) Attach(ctx context.Context, a Attach) (Attached, error) {
	var out Attached
	err := c.call(ctx, http.MethodPost, AttachPath, a, &out)
	return out, err
}

// Detach takes interfaces away. The error wraps ErrNotFound when there is none.
func (c *Client) Detach(ctx context.Context, d Detach) error {
	return c.call(ctx, http.MethodPost, DetachPath, d, nil)
}

// Status asks how the agent is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var out Status
	err := c.call(ctx, http.MethodGet, StatusPath, nil, &out)
	return out, err
}

// Attachments lists the interfaces of the node, sorted.
func (c *Client) Attachments(ctx context.Context) ([]Attachment, error) {
	var out []Attachment
	err := c.call(ctx, http.MethodGet, AttachmentsPath, nil, &out)
	return out, err
}

// Consent accepts a risk.
func (c *Client) Consent(ctx context.Context, in Consent) error {
	return c.call(ctx, http.MethodPost, ConsentPath, in, nil)
}

// Proxies lists the proxies of the node, sorted by name.
func (c *Client) Proxies(ctx context.Context) ([]Proxy, error) {
	var out []Proxy
	err := c.call(ctx, http.MethodGet, ProxiesPath, nil, &out)
	return out, err
}

// Proxy asks a proxy of the node for one of ProxyDoors; the format is text or
// json, where it has both.
func (c *Client) Proxy(ctx context.Context, name, door, format string, w io.Writer) error {
	q := url.Values{"name": {name}, "door": {door}, "format": {format}}
	resp, err := c.do(ctx, http.MethodGet, ProxyPath+"?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return err
}

// ReplaceProxies has every proxy of the node replaced by another process, and
// returns when these serve.
func (c *Client) ReplaceProxies(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, ReplacePath, nil, nil)
}

// Dump writes everything that the agent knows and has in the kernel, as text.
func (c *Client) Dump(ctx context.Context, w io.Writer) error {
	resp, err := c.do(ctx, http.MethodGet, DumpPath, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return err
}

// Flows calls emit for each record that the node still keeps and that matches
// the query (from, to, verdict, project, since, rule, limit; see flow). With
// follow it goes on until ctx is done.
func (c *Client) Flows(ctx context.Context, query url.Values, follow bool, emit func(record.Record)) error {
	q := url.Values{}
	for k, v := range query {
		q[k] = v
	}
	if follow {
		q.Set("follow", "true")
	}
	resp, err := c.do(ctx, http.MethodGet, FlowsPath+"?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	d := json.NewDecoder(bufio.NewReader(resp.Body))
	for {
		var r record.Record
		err := d.Decode(&r)
		switch {
		case errors.Is(err, io.EOF) || ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("records from %s: %w", c.socket, err)
		}
		emit(r)
	}
}

// call sends in as JSON and reads the answer into out, which may be nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("answer of the agent at %s: %w", c.socket, err)
	}
	return nil
}

// do sends a request and turns every answer that is not 2xx into an error.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://moire-node"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w at %s; start it with 'moire up' or 'moire-node run'", ErrAway, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("the agent at %s serves only root; run this with sudo: %w", c.socket, err)
	case err != nil:
		return nil, fmt.Errorf("ask the agent at %s: %w", c.socket, err)
	case resp.StatusCode/100 == 2:
		return resp, nil
	}
	defer resp.Body.Close()
	var p Problem
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || json.Unmarshal(b, &p) != nil || p.Error == "" {
		p.Error = resp.Status
	}
	switch resp.StatusCode {
	case http.StatusNotFound:
		return nil, refused{p.Error, ErrNotFound}
	case http.StatusBadRequest:
		return nil, refused{p.Error, ErrInvalid}
	}
	return nil, errors.New(p.Error)
}

// refused is what the agent says, of a kind.
type refused struct {
	text string
	kind error
}

// Error is what the agent says.
func (r refused) Error() string { return r.text }

// Unwrap gives the kind.
func (r refused) Unwrap() error { return r.kind }
