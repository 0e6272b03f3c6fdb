package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"moire.dev/moire/proxy/judge/stage"
	"moire.dev/moire/snapshot/l7"
)

// curlCase is one line of curl and what it has to say.
type curlCase struct {
	name string
	// args of curl; {plain}, {tls}, {mtls}, {proxied} are addresses, {dir} a
	// directory with a file "big" (8 MiB of the origin's pattern) and "small".
	args string
	// exit codes of curl that are right; none: 0.
	exit []int
	// wants are parts of what curl prints (head and body); "!" in front: not there.
	wants []string
	// sum is the SHA-256 of the body, in place of wants.
	sum string
	// check sees what the origin saw, where the answer is /echo's.
	check func(stage.Seen) string
	// own: only our proxy is told this.
	own bool
}

// curl runs the table.
func curl(ctx context.Context, h *hall) ([]verdict, error) {
	origin, err := h.Origin(ctx, nil)
	if err != nil {
		return nil, err
	}
	c, places := h.curlConfig(origin)
	p, err := h.Proxy(ctx, h.kind, c, nil)
	if err != nil {
		return nil, err
	}
	var big bytes.Buffer
	if _, err := big.ReadFrom(stage.Pattern(8 << 20)); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(h.Dir, "big"), big.Bytes(), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(h.Dir, "small"), []byte("a small body"), 0o600); err != nil {
		return nil, err
	}
	v := verdict{judge: "curl"}
	for _, one := range curlTable() {
		if one.own && !h.own {
			v.notes = append(v.notes, one.name+": only our proxy is told this")
			continue
		}
		v.say(one.name, h.curlOne(ctx, one, places))
	}
	v.say("proxy lives", goneSays(p.Gone()))
	return []verdict{v}, nil
}

// curlConfig has the listeners that the table names.
func (h *hall) curlConfig(origin string) (*l7.Config, *strings.Replacer) {
	c, plain, tls := h.plain(origin)
	mtls, proxied := h.Address(), h.Address()
	known := h.Address()
	c.Listeners = append(c.Listeners,
		l7.Listener{Name: "mtls", Address: mtls, TLS: &l7.ServerTLS{Certificates: []string{stage.Certificate}, ClientCA: h.Authority()}},
		l7.Listener{Name: "proxied", Address: proxied, ProxyProtocol: true},
		l7.Listener{Name: "known", Address: known, Protocol: l7.HTTP2})
	full, prefix := "/echo", l7.Prefix
	at := func(path string) []l7.Match { return []l7.Match{{Path: &l7.PathMatch{Kind: prefix, Value: path}}} }
	to := []l7.Backend{{Cluster: "origin"}}
	c.Routes[0].Rules = append(c.Routes[0].Rules,
		l7.Rule{Matches: at("/moved"), Filters: []l7.Filter{{Redirect: &l7.Redirect{Path: &l7.PathChange{Full: &full}, Status: 301}}}})
	if h.own {
		c.Routes[0].Rules = append(c.Routes[0].Rules,
			l7.Rule{Matches: at("/cors"), Backends: to, Filters: []l7.Filter{{CORS: &l7.CORS{AllowOrigins: []string{"https://shop.test"}, AllowMethods: []string{"GET", "PUT"}, AllowHeaders: []string{"x-token"}, AllowCredentials: true, MaxAge: 60}}}},
			l7.Rule{Matches: at("/flaky"), Backends: to, Retry: &l7.Retry{Codes: []int{503}, Attempts: 2}},
			l7.Rule{Matches: at("/old"), Backends: to, Filters: []l7.Filter{{Rewrite: &l7.Rewrite{Path: &l7.PathChange{Full: &full}}}}},
			l7.Rule{Matches: at("/changed"), Backends: to, Filters: []l7.Filter{{Rewrite: &l7.Rewrite{Path: &l7.PathChange{Full: &full}}},
				{RequestHeaders: &l7.HeaderChange{Set: []l7.Header{{Name: "x-set", Value: "by the proxy"}}, Remove: []string{"x-secret"}}},
				{ResponseHeaders: &l7.HeaderChange{Add: []l7.Header{{Name: "x-added", Value: "by the proxy"}}}}}},
			l7.Rule{Matches: at("/sleep"), Backends: to, Timeouts: l7.Timeouts{Request: l7.Duration(time.Second)}},
			l7.Rule{Matches: at("/limited"), Backends: to, RateLimits: []l7.RateLimit{{Requests: 2, Per: l7.Duration(time.Minute)}}})
	}
	split := func(address string) string { return "localhost:" + address[strings.LastIndexByte(address, ':')+1:] }
	return c, strings.NewReplacer("{plain}", split(plain), "{tls}", split(tls), "{mtls}", split(mtls), "{proxied}", split(proxied), "{known}", split(known),
		"{tlsport}", tls[strings.LastIndexByte(tls, ':')+1:], "{dir}", h.Dir, "{ca}", h.PKI.CA, "{cert}", h.PKI.ClientChain, "{key}", h.PKI.ClientKey, "{strange}", h.PKI.Strange, "{strangekey}", h.PKI.StrangeKey)
}

func (h *hall) curlOne(ctx context.Context, one curlCase, places *strings.Replacer) string {
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	args := []string{"-sS", "-m", "30", "--cacert", h.PKI.CA}
	if one.sum == "" {
		args = append(args, "-i")
	}
	for arg := range strings.FieldsSeq(one.args) {
		args = append(args, strings.ReplaceAll(places.Replace(arg), "~", " "))
	}
	cmd := exec.CommandContext(bounded, "curl", args...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	exit := cmd.ProcessState.ExitCode()
	if !slices.Contains(one.exit, exit) && (one.exit != nil || exit != 0) {
		return fmt.Sprintf("curl %s: exit %d, want %v (%v): %s %.200s", strings.Join(args[3:], " "), exit, one.exit, err, complaint.String(), out)
	}
	text := string(out) + complaint.String()
	if one.sum != "" {
		if sum := sha256.Sum256(out); hex.EncodeToString(sum[:]) != one.sum {
			return fmt.Sprintf("%d bytes with another checksum", len(out))
		}
		return ""
	}
	for _, want := range one.wants {
		not, absent := strings.CutPrefix(want, "!")
		if absent && strings.Contains(text, not) || !absent && !strings.Contains(text, want) {
			return fmt.Sprintf("want %q in %.600q", want, text)
		}
	}
	if one.check == nil {
		return ""
	}
	_, body, _ := strings.Cut(string(out), "\r\n\r\n{")
	var seen stage.Seen
	if err := json.Unmarshal([]byte("{"+body), &seen); err != nil {
		return fmt.Sprintf("no echo: %v in %.400q", err, text)
	}
	return one.check(seen)
}

// saw checks method, length and framing.
func saw(method string, length int, framing string) func(stage.Seen) string {
	return func(s stage.Seen) string {
		if s.Method != method || s.Length != length || framing != "" && s.Framing != framing {
			return fmt.Sprintf("the origin saw %s, %d bytes, %s", s.Method, s.Length, s.Framing)
		}
		return ""
	}
}

// sawSum checks the body that arrived.
func sawSum(sum string, n int) func(stage.Seen) string {
	return func(s stage.Seen) string {
		if s.SHA256 != sum || s.Length != n {
			return "the origin saw other bytes, " + strconv.Itoa(s.Length) + " of them"
		}
		return ""
	}
}

// sawField checks a field; an empty value: it is not there.
func sawField(name, value string) func(stage.Seen) string {
	return func(s stage.Seen) string {
		if got := strings.Join(s.Header[name], ","); got != value {
			return fmt.Sprintf("the origin saw %s: %q, want %q", name, got, value)
		}
		return ""
	}
}
