package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"moire.dev/moire/proxy/judge/stage"
)

// hall is what a judge gets.
type hall struct {
	*stage.Stage
	// kind of proxy under test, of stage.Kinds.
	kind string
	// own: the proxy under test is ours, so written exceptions and features
	// beyond what peers are told count.
	own bool
	// only: attacks with one of these in their name, comma separated; empty: all.
	only string
}

type judge struct {
	name  string
	about string
	run   func(context.Context, *hall) ([]verdict, error)
}

// conformance lists the judges in the order in which they run.
var conformance = []judge{
	{"h2spec", "HTTP/2, the server's side, plain and over TLS", h2spec},
	{"h2specd", "HTTP/2, the client's side, where h2specd is at hand", h2specd},
	{"grpc", "gRPC's interop suite: plain, over TLS, over mutual TLS", grpcInterop},
	{"grpc-negative", "gRPC's client for servers that end streams and connections early", grpcNegative},
	{"smuggle", "requests that two servers may read in two ways, before five kinds of back ends", smuggled},
	{"answers", "answers of a back end that two clients may read in two ways", badAnswers},
	{"websocket", "WebSocket by ws, Python's websockets, and undici over HTTP/2", websocket},
	{"curl", "curl: methods, bodies, transports, routes", curl},
	{"testssl", "testssl.sh on the TLS listener", testssl},
	{"slowhttptest", "slowhttptest: slowloris, slow body, range, slow read", slowhttp},
}

// attacks list the attackers.
var attacks = []judge{
	{"attack", "floods, bombs, stalls and slowloris, each on a fresh proxy", attacked},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	failed, err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "judge:", err)
		os.Exit(2)
	}
	if failed {
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (failed bool, err error) {
	if len(args) == 2 && args[0] == "origin" {
		return false, stage.ServeOrigin(args[1])
	}
	if len(args) > 1 && (args[0] == "attacker" || args[0] == "honest") {
		result, err := asSelf(ctx, args)
		if err != nil {
			return false, err
		}
		return false, json.NewEncoder(os.Stdout).Encode(result)
	}
	flags := flag.NewFlagSet("judge", flag.ContinueOnError)
	kind := flags.String("proxy", "moire", "the proxy under test: "+strings.Join(stage.Kinds, ", "))
	moire := flags.String("moire", "bin/moire-proxy", "the binary of our proxy")
	tools := flags.String("tools", "bin/judges", "where proxy/judge/install put the judges")
	only := flags.String("only", "", "judges to run, comma separated; empty: all")
	all := flags.Bool("v", false, "print every failed case, not the first of them")
	keep := flags.Bool("keep", false, "keep configurations and logs, and say where")
	part := flags.String("attack", "", "attacks with one of these in their name, comma separated; empty: all")
	span := flags.Duration("fuzztime", 10*time.Minute, "how long each fuzz target runs")
	list := flags.Bool("list", false, "list the judges and stop")
	if err := flags.Parse(args); err != nil {
		return false, err
	}
	if flags.Arg(0) == "fuzz" {
		v, err := fuzzed(ctx, "./proxy/...", *span)
		v.print(os.Stdout, true)
		return len(v.failed) > 0, err
	}
	chosen, err := choose(flags.Arg(0), *only)
	if err != nil {
		return false, err
	}
	if *list {
		for _, j := range chosen {
			fmt.Printf("%-14s %s\n", j.name, j.about)
		}
		return false, nil
	}
	dir, err := os.MkdirTemp("", "judge-")
	if err != nil {
		return false, err
	}
	if *keep {
		fmt.Fprintln(os.Stderr, "logs and configurations:", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	*tools, err = filepath.Abs(*tools)
	if err != nil {
		return false, err
	}
	for _, j := range chosen {
		own := filepath.Join(dir, j.name)
		if err := os.Mkdir(own, 0o755); err != nil {
			return true, err
		}
		s, err := stage.New(own, *tools, *moire)
		if err != nil {
			return true, err
		}
		bad := hold(ctx, j, &hall{Stage: s, kind: *kind, own: *kind == "moire", only: *part}, *all)
		failed = failed || bad
	}
	return failed, nil
}

func choose(what, only string) ([]judge, error) {
	all := map[string][]judge{"conformance": conformance, "attack": attacks}[what]
	if all == nil {
		return nil, fmt.Errorf("what to do? judge [flags] conformance, attack or fuzz; not %q", what)
	}
	if only == "" {
		return all, nil
	}
	var chosen []judge
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(all, func(j judge) bool { return j.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-only %s: no such judge in %s; -list shows them", name, what)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// hold lets one judge judge.
func hold(ctx context.Context, j judge, h *hall, all bool) (failed bool) {
	defer h.Close()
	start := time.Now()
	fmt.Fprintf(os.Stderr, "judge %s ...\n", j.name)
	verdicts, err := j.run(ctx, h)
	for i := range verdicts {
		verdicts[i].print(os.Stdout, all)
		failed = failed || len(verdicts[i].failed) > 0
	}
	if err != nil {
		fmt.Printf("FAIL %-22s did not judge: %v\n", j.name, err)
		failed = true
	}
	fmt.Fprintf(os.Stderr, "judge %s took %s\n", j.name, time.Since(start).Round(time.Second))
	return failed
}
