package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"moire.dev/moire/proxy"
	"moire.dev/moire/snapshot/l7"
)

func main() {
	file := flag.String("config", "", "configuration")
	flag.Parse()
	b, err := os.ReadFile(*file)
	if err == nil {
		var c l7.Config
		if err = json.Unmarshal(b, &c); err == nil {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			var p *proxy.Proxy
			if p, err = proxy.New(proxy.Options{Workers: c.Workers}); err == nil {
				if err = p.Apply(&c); err == nil {
					err = p.Run(ctx)
				}
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
