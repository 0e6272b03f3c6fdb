package main

import (
	"bufio"
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

//go:embed scripts
var scripts embed.FS

// script writes one of scripts to the stage and is its path.
func (h *hall) script(name string) (string, error) {
	b, err := scripts.ReadFile("scripts/" + name)
	if err != nil {
		return "", err
	}
	path := filepath.Join(h.Dir, name)
	return path, os.WriteFile(path, b, 0o600)
}

// websocket lets clients talk through the proxy to a server of npm's ws: ws and
// Python's websockets over HTTP/1.1, ws on streams of Node's own HTTP/2, and
// undici over HTTP/2.
func websocket(ctx context.Context, h *hall) ([]verdict, error) {
	server, err := h.script("websocket_server.mjs")
	if err != nil {
		return nil, err
	}
	client, err := h.script("websocket_client.mjs")
	if err != nil {
		return nil, err
	}
	python, err := h.script("websocket_client.py")
	if err != nil {
		return nil, err
	}
	address := h.Address()
	p, err := h.Run(ctx, "env", "-C", h.Tool("node"), "node", server, address)
	if err != nil {
		return nil, err
	}
	if err := p.Await(address); err != nil {
		return nil, err
	}
	c, plain, tls := h.plain(address)
	if p, err = h.Proxy(ctx, h.kind, c, nil); err != nil {
		return nil, err
	}
	_, plainPort, _ := net.SplitHostPort(plain) // ours
	_, tlsPort, _ := net.SplitHostPort(tls)
	ws, wss := "ws://localhost:"+plainPort, "wss://localhost:"+tlsPort
	var all []verdict
	for _, one := range []struct {
		name string
		args []string
	}{
		{"websocket-ws", []string{"node", client, "ws", ws}},
		{"websocket-ws-tls", []string{"node", client, "ws", wss, h.PKI.CA}},
		{"websocket-python", []string{h.Tool("python/bin/python"), python, ws}},
		{"websocket-python-tls", []string{h.Tool("python/bin/python"), python, wss, h.PKI.CA}},
		{"websocket-h2-ws", []string{"node", client, "ws-h2", wss, h.PKI.CA}},
		{"websocket-h2-undici", []string{"node", client, "undici", wss, h.PKI.CA}},
	} {
		v := verdict{judge: one.name}
		if err := h.lines(ctx, &v, one.args); err != nil {
			return all, err
		}
		v.say("proxy lives", goneSays(p.Gone()))
		all = append(all, v)
	}
	return all, nil
}

// lines runs a script that prints {"name": …, "error": …} for each case.
func (h *hall) lines(ctx context.Context, v *verdict, args []string) error {
	bounded, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(bounded, args[0], args[1:]...)
	cmd.Dir = h.Tool("node")
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		var one struct{ Name, Error string }
		if err := json.Unmarshal(s.Bytes(), &one); err != nil {
			return fmt.Errorf("%s printed %q: %w", args, s.Text(), err)
		}
		v.say(one.Name, one.Error)
	}
	if err != nil || v.cases == 0 {
		return fmt.Errorf("%s judged %d cases and ended with %w:\n%s", args, v.cases, err, complaints.String())
	}
	return nil
}
