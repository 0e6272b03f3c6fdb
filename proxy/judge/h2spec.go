package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// plain is a Config with one route of everything to one origin, on a listener
// without TLS ("plain") and one with ("tls").
func (h *hall) plain(origin string) (c *l7.Config, plain, tls string) {
	plain, tls = h.Address(), h.Address()
	return &l7.Config{
		Name: "judged", Workers: 1,
		Listeners: []l7.Listener{
			{Name: "plain", Address: plain},
			{Name: "tls", Address: tls, TLS: &l7.ServerTLS{Certificates: []string{"server"}}},
		},
		Routes:       []l7.Route{{Name: "all", Rules: []l7.Rule{{Backends: []l7.Backend{{Cluster: "origin"}}}}}},
		Clusters:     []l7.Cluster{{Name: "origin", Endpoints: []l7.Endpoint{{Address: origin}}}},
		Certificates: h.Certificates(),
	}, plain, tls
}

// h2spec runs all its cases against both listeners.
func h2spec(ctx context.Context, h *hall) ([]verdict, error) {
	origin, err := h.Origin(ctx, nil)
	if err != nil {
		return nil, err
	}
	c, plain, tls := h.plain(origin)
	known := h.Address()
	c.Listeners = append(c.Listeners, l7.Listener{Name: "known", Address: known, Protocol: l7.HTTP2})
	if h.kind == "nginx" {
		c.Listeners[0].Protocol = l7.HTTP2 // it cannot tell the two apart
	}
	p, err := h.Proxy(ctx, h.kind, c, nil)
	if err != nil {
		return nil, err
	}
	var all []verdict
	for _, one := range []struct {
		name, address string
		flags         []string
	}{{"h2spec-plain", known, nil}, {"h2spec-auto", plain, nil}, {"h2spec-tls", tls, []string{"-t", "-k"}}} {
		v, err := h.runH2spec(ctx, one.name, one.address, one.flags)
		if err != nil {
			return all, err
		}
		v.say("proxy lives", goneSays(p.Gone()))
		all = append(all, v)
	}
	return all, nil
}

func goneSays(gone bool) string {
	if gone {
		return "the proxy has ended"
	}
	return ""
}

// junit is what h2spec reports.
type junit struct {
	Suites []struct {
		Package string `xml:"package,attr"`
		ID      string `xml:"id,attr"`
		Cases   []struct {
			Package string    `xml:"package,attr"`
			Class   string    `xml:"classname,attr"`
			Failure *struct{} `xml:"failure"`
			Error   *string   `xml:"error"`
			Skipped *struct{} `xml:"skipped"`
			Text    string    `xml:",innerxml"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

func (h *hall) runH2spec(ctx context.Context, name, address string, flags []string) (verdict, error) {
	v := verdict{judge: name}
	bounded, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return v, err
	}
	report := filepath.Join(h.Dir, name+".xml")
	cmd := exec.CommandContext(bounded, h.Tool("h2spec"), append([]string{"-h", host, "-p", port, "-j", report}, flags...)...)
	out, ranErr := cmd.CombinedOutput() // it exits 1 when a case failed
	b, err := os.ReadFile(report)
	if err != nil {
		return v, fmt.Errorf("h2spec wrote no report (%w, %v):\n%s", err, ranErr, out)
	}
	var r junit
	b = bytes.ReplaceAll(b, []byte{0}, nil) // what a server said is quoted as it came
	if err := xml.Unmarshal(b, &r); err != nil {
		return v, fmt.Errorf("h2spec's report: %w", err)
	}
	for _, s := range r.Suites {
		count := map[string]int{}
		for _, c := range s.Cases {
			count[c.Package]++
			id := fmt.Sprintf("%s/%d", c.Package, count[c.Package])
			wrong := ""
			if c.Failure != nil || c.Error != nil || c.Skipped != nil {
				wrong = c.Class + ": " + oneLine(c.Text)
			}
			v.say(id, wrong)
		}
	}
	if v.cases < 145 {
		v.say("all cases run", fmt.Sprintf("only %d of 145:\n%s", v.cases, out[max(0, len(out)-500):]))
	}
	return v, nil
}
