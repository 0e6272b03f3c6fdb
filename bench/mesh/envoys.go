package main

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"text/template"
)

//go:embed peers/envoy.yaml
var peerFiles embed.FS

// hop is a listener of an Envoy and where it leads.
type hop struct {
	Name, Dir, Certs   string
	At                 string
	Port               int
	Codec              string
	To                 string
	ToPort             string
	TakesTLS, MakesTLS bool
	Streams            bool // HTTP/2 to the other Envoy
	Routes             []int
}

// Ports of Envoys, in namespaces that have nothing else.
const envoyIn = 15006

// streams is far, with HTTP/2 between the two.
const streams = "streams"

var envoyOut = map[string]int{near: 15001, far: 15002, streams: 15003}

// needEnvoys starts an Envoy beside the client and beside each server of the
// tenant that is not in the mesh.
func (b *bench) needEnvoys(ctx context.Context) error {
	if len(b.envoys) > 0 {
		return nil
	}
	if out, err := exec.CommandContext(ctx, filepath.Join(b.bin, "bench-proxy"), "certificates", b.scratch).CombinedOutput(); err != nil {
		return fmt.Errorf("make certificates: %w: %s", err, out)
	}
	for _, where := range []string{near, far} {
		if err := b.startEnvoy(where, hop{Name: "in", At: "0.0.0.0", Port: envoyIn, Codec: "AUTO", To: "127.0.0.1", ToPort: upstreamPort, TakesTLS: true}); err != nil {
			return err
		}
	}
	to := func(name, where string, two bool) hop {
		return hop{Name: name, At: "127.0.0.1", Port: envoyOut[name], Codec: "HTTP1", To: b.addresses[guest(plain, where)], ToPort: strconv.Itoa(envoyIn), MakesTLS: true, Streams: two}
	}
	return b.startEnvoy("client", to(near, near, false), to(far, far, false), to(streams, far, true))
}

// startEnvoy starts one in the namespace of a guest, with one worker, on core 0.
func (b *bench) startEnvoy(name string, hops ...hop) error {
	dir := filepath.Join(b.scratch, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for i := range hops {
		hops[i].Dir, hops[i].Certs, hops[i].Routes = dir, b.scratch, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
	}
	config, err := envoyConfig(name, hops)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return err
	}
	b.envoys[name], err = b.Start("envoy-"+name, netns(guest(plain, name)), "taskset", "-c", "0", b.envoy, "-c", file, "--concurrency", "1", "--disable-hot-restart", "-l", "error")
	return err
}

// envoyConfig is the configuration of one.
func envoyConfig(name string, hops []hop) ([]byte, error) {
	t, err := template.ParseFS(peerFiles, "peers/envoy.yaml")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, map[string]any{"Name": name, "Hops": hops})
	return b.Bytes(), err
}
