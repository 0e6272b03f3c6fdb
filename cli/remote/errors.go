package remote

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"moire.dev/moire/cli/fault"
)

// Cause is one reason inside a Refused, with the field that it is about.
type Cause struct {
	Reason  string `json:"reason"`
	Field   string `json:"field"`
	Message string `json:"message"`
}

// Refused is the API server's no.
type Refused struct {
	Method, Path string
	HTTP         int
	Reason       string // such as NotFound, Invalid, Forbidden, Conflict
	Message      string
	Causes       []Cause
}

// Error is the server's message and the fix.
func (r *Refused) Error() string {
	if fix := r.Fix(); fix != "" {
		return r.Message + "\n  fix: " + fix
	}
	return r.Message
}

// Text is the message without the fix.
func (r *Refused) Text() string { return r.Message }

// ExitCode follows the HTTP status.
func (r *Refused) ExitCode() int {
	switch r.HTTP {
	case 401, 403:
		return fault.Forbidden
	case 400, 405, 406, 413, 415, 422:
		return fault.Usage
	case 408, 504:
		return fault.Timeout
	case 429, 502, 503:
		return fault.Unreachable
	}
	return fault.Failed
}

// Fix is what to do about it, empty where only the message can say.
func (r *Refused) Fix() string {
	switch {
	case r.HTTP == 401:
		return "use a kubeconfig whose certificate or token is valid (--kubeconfig FILE, --context NAME)"
	case r.HTTP == 403 && strings.Contains(r.Message, "cannot"):
		return "ask an administrator for a role, such as: kubectl create rolebinding NAME -n PROJECT --clusterrole=moire-tenant-viewer --user=USER"
	case r.HTTP == 404 && strings.HasPrefix(r.Message, "namespaces \""):
		return "apply a Namespace of that name with the label moire.dev/domain first"
	case r.HTTP == 409 && r.Reason == "Conflict" && r.conflict():
		return "leave those fields to their owner, or take them over with --force-conflicts"
	case r.HTTP == 429 || r.HTTP == 503:
		return "wait a moment and try again; `moire status` says how the control plane is"
	}
	return ""
}

func (r *Refused) conflict() bool {
	for _, c := range r.Causes {
		if c.Reason == "FieldManagerConflict" {
			return true
		}
	}
	return false
}

// OwnedByNobody says whether an apply was refused only because of fields that nobody
// ever applied, such as defaults of an object that was applied without any field:
// the server remembers who owns what from the first field on.
func OwnedByNobody(err error) bool {
	var r *Refused
	if !errors.As(err, &r) || !r.conflict() {
		return false
	}
	return !slices.ContainsFunc(r.Causes, func(c Cause) bool {
		return c.Reason != "FieldManagerConflict" || !strings.Contains(c.Message, `"before-first-apply"`)
	})
}

// refusal reads a Status object, or takes whatever the body says.
func refusal(method, path string, code int, body []byte) *Refused {
	var status struct {
		Kind    string `json:"kind"`
		Message string `json:"message"`
		Reason  string `json:"reason"`
		Details struct {
			Causes []Cause `json:"causes"`
		} `json:"details"`
	}
	r := &Refused{Method: method, Path: path, HTTP: code}
	if err := json.Unmarshal(body, &status); err == nil && status.Message != "" {
		r.Reason, r.Message, r.Causes = status.Reason, status.Message, status.Details.Causes
		return r
	}
	text := strings.TrimSpace(string(body))
	if len(text) > 300 {
		text = text[:300] + "..."
	}
	r.Message = fmt.Sprintf("%s %s: the server answered %d: %s", method, path, code, text)
	return r
}

// IsNotFound says whether err means that the object (or its project) is absent.
func IsNotFound(err error) bool {
	var r *Refused
	return errors.As(err, &r) && r.HTTP == 404
}

// IsGone says whether err means that a watch must start anew.
func IsGone(err error) bool {
	var r *Refused
	return errors.As(err, &r) && r.HTTP == 410
}

// lost turns a transport error into a Fault.
func (c *Client) lost(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return &fault.Fault{Code: fault.Timeout, Cause: err,
			Text: fmt.Sprintf("the API server %s did not answer in time", c.Server),
			Fix:  "try again with a larger --request-timeout, or see `moire status`"}
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	fix := "start a control plane with `moire up`, or choose another with --kubeconfig FILE or --context NAME"
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	switch {
	case errors.As(err, &unknown), errors.As(err, &invalid), errors.As(err, &host):
		fix = "the kubeconfig does not belong to this server; use the one that moired wrote (--kubeconfig /run/moire/kubeconfig)"
	case errors.Is(err, syscall.ECONNREFUSED):
		err = errors.New("connection refused")
	}
	where := ""
	if c.Origin != "" {
		where = " (from " + c.Origin + ")"
	}
	return &fault.Fault{Code: fault.Unreachable, Fix: fix, Cause: err,
		Text: fmt.Sprintf("cannot reach the API server %s%s: %v", c.Server, where, err)}
}
