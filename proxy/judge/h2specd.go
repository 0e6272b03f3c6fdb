package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// h2specdSections and how many cases each has, those below it included.
var h2specdSections = []struct {
	name  string
	cases int
}{
	{"1", 1}, {"4.1", 3}, {"4.2", 3}, {"4.3", 1}, {"5.1", 11}, {"5.4.1", 2}, {"5.5", 1}, {"6.1", 3}, {"6.2", 3}, {"6.3", 2},
	{"6.4", 3}, {"6.5", 8}, {"6.7", 4}, {"6.8", 1}, {"6.9", 5}, {"6.10", 6},
}

// ports of one section: the cases listen on the first of them, the proxy in
// front of each on a second range.
const ports = 12

// h2specd judges the upstream side: each case is a server that misbehaves, and
// curl asks it through the proxy. It is in no release of h2spec, so it is run only
// where install could build it, or somebody put it beside the other judges.
func h2specd(ctx context.Context, h *hall) ([]verdict, error) {
	v := verdict{judge: "h2specd"}
	program := h.Tool("h2specd")
	if _, err := os.Stat(program); errors.Is(err, fs.ErrNotExist) {
		v.notes = append(v.notes, "not run: no release of h2spec has its client mode, and there is no "+program)
		return []verdict{v}, nil
	}
	script := filepath.Join(h.Dir, "ask")
	ask := fmt.Sprintf("p=${1##*:}; p=${p%%/}; exec curl -s -o %s/answer -m 2 --connect-to ::127.0.0.1:$((p+%d)) \"$1\"\n", h.Dir, ports)
	if err := os.WriteFile(script, []byte(ask), 0o600); err != nil {
		return nil, err
	}
	for _, s := range h2specdSections {
		if err := h.h2specdSection(ctx, &v, s.name, s.cases, program, script); err != nil {
			return []verdict{v}, err
		}
	}
	return []verdict{v}, nil
}

func (h *hall) h2specdSection(ctx context.Context, v *verdict, section string, cases int, program, script string) error {
	s, err := h.Sub("h2specd-" + section)
	if err != nil {
		return err
	}
	defer s.Close()
	first := s.Port() + 1
	c := &l7.Config{Name: "judged", Workers: 1}
	for i := range ports {
		name, address := "l"+strconv.Itoa(i), func(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }
		c.Listeners = append(c.Listeners, l7.Listener{Name: name, Address: address(first + ports + i)})
		c.Routes = append(c.Routes, l7.Route{Name: name, Listeners: []string{name}, Rules: []l7.Rule{{Backends: []l7.Backend{{Cluster: name}}}}})
		c.Clusters = append(c.Clusters, l7.Cluster{Name: name, Protocol: l7.HTTP2, Endpoints: []l7.Endpoint{{Address: address(first + i)}}})
	}
	p, err := s.Proxy(ctx, h.kind, c, nil)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := exec.CommandContext(bounded, program, "-f", strconv.Itoa(first), "-o", "1", "-e", "sh "+script, "client/"+section).CombinedOutput()
	said := 0
	for line := range strings.Lines(string(out)) {
		passed, failed := strings.Contains(line, "✔"), strings.Contains(line, "×")
		if !passed && !failed || said == cases {
			continue
		}
		said++
		name := fmt.Sprintf("client/%s case %d", section, said)
		if failed {
			v.say(name, oneLine(line))
		} else {
			v.say(name, "")
		}
	}
	for ; said < cases; said++ {
		v.say(fmt.Sprintf("client/%s case %d", section, said+1), fmt.Sprintf("no verdict (%v): %s", err, oneLine(string(out[max(0, len(out)-200):]))))
	}
	if p.Gone() {
		v.say("client/"+section+": proxy lives", "the proxy has ended")
	}
	return nil
}
