package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"moire.dev/moire/cli/fault"
	"moire.dev/moire/flow/pcapng"
	"moire.dev/moire/snapshot"
)

// captureFlags are the flags of `moire capture`.
type captureFlags struct {
	peer     string
	protocol string
	port     int
	verdict  string
	rule     string
	duration time.Duration
	packets  int
	length   int
	write    string
	quiet    bool
}

func (a *app) captureCommand() *cobra.Command {
	var f captureFlags
	c := &cobra.Command{
		Use:   "capture [PROJECT/WORKLOAD]",
		Short: "See packets of a project, with the rule that let them pass or not",
		Long: `See packets of a project at both ends, each with its verdict and the rule that
decided, or the reason of its drop. Only what the project's own Networks carry is
seen, as the Workloads sent it. The end is after --for, --packets or Ctrl-C.

With -w a pcapng file is written, which Wireshark opens: the rule is in the
comment of each packet. "-w -" writes to standard output.`,
		Example: `  moire capture shop/web --for 5s
  moire capture -p shop --verdict deny -w denied.pcapng
  moire capture shop/web --peer 10.0.0.12 --port 5432 --rule policy/shop/db -w - | tcpdump -r -`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.capture(c.Context(), f, args) },
	}
	fl := c.Flags()
	fl.StringVar(&f.peer, "peer", "", "an address at the other end")
	fl.StringVar(&f.protocol, "proto", "", "tcp, udp, sctp or icmp (default: all)")
	fl.IntVar(&f.port, "port", 0, "port at either end")
	fl.StringVar(&f.verdict, "verdict", "", "allow or deny")
	fl.StringVar(&f.rule, "rule", "", "id of the rule that decided, or the reason of a drop")
	fl.DurationVar(&f.duration, "for", 10*time.Second, "how long, at most 1m")
	fl.IntVar(&f.packets, "packets", 10000, "how many, at most 100000")
	fl.IntVar(&f.length, "length", 256, "bytes kept of each packet; a node keeps at most 2048 of them")
	fl.StringVarP(&f.write, "write", "w", "", "write a pcapng file; - is standard output")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "with -w: no line for each packet")
	return c
}

func (f *captureFlags) query() (url.Values, error) {
	q := url.Values{}
	set := func(k, v string) {
		if v != "" {
			q.Set(k, v)
		}
	}
	set("peer", f.peer)
	set("protocol", f.protocol)
	set("verdict", f.verdict)
	set("rule", f.rule)
	switch {
	case f.port < 0 || f.port > 65535:
		return nil, fault.Usagef("give a port from 1 to 65535", "--port %d is not a port", f.port)
	case f.verdict != "" && f.verdict != "allow" && f.verdict != "deny":
		return nil, fault.Usagef("use allow or deny", "--verdict %q is unknown", f.verdict)
	case f.duration < time.Second || f.duration > time.Minute:
		return nil, fault.Usagef("use a length from 1s to 1m", "--for %s is too short or too long", f.duration)
	case f.packets < 1 || f.packets > 100000:
		return nil, fault.Usagef("use 1 to 100000", "--packets %d is too few or too many", f.packets)
	case f.length < 14 || f.length > 65535:
		return nil, fault.Usagef("use 14 to 65535", "--length %d is too short or too long", f.length)
	}
	if f.port > 0 {
		set("port", strconv.Itoa(f.port))
	}
	set("seconds", strconv.Itoa(int(f.duration.Seconds())))
	set("packets", strconv.Itoa(f.packets))
	set("length", strconv.Itoa(f.length))
	return q, nil
}

func (a *app) capture(ctx context.Context, f captureFlags, args []string) (err error) {
	q, err := f.query()
	if err != nil {
		return err
	}
	project, err := a.workspace()
	if err != nil {
		return err
	}
	if len(args) == 1 {
		owner, name, found := strings.Cut(args[0], "/")
		if !found {
			owner, name = project, args[0]
		}
		if checkNames([]string{cmp.Or(owner, "default"), name}) != nil {
			return fault.Usagef("write PROJECT/WORKLOAD", "%q is not a workload", args[0])
		}
		project = cmp.Or(owner, project)
		q.Set("workload", name)
	}
	if project == "" {
		client, err := a.client()
		if err != nil {
			return err
		}
		project = client.Namespace
	}
	if f.write == "" {
		return a.capturePrint(ctx, project, q)
	}
	return a.captureWrite(ctx, project, q, f)
}

// capturePrint shows one line for each packet.
func (a *app) capturePrint(ctx context.Context, project string, q url.Values) error {
	n := 0
	err := a.openCaptures(ctx, project, q, func() { a.say("capturing in project %s; Ctrl-C ends it", project) }, func(p snapshot.Captured) error {
		n++
		_, err := fmt.Fprintf(a.out, "%s  %s  %s\n", p.Time.Local().Format("15:04:05.000000"), packetText(p.Data), pcapng.Comment(p))
		return err
	})
	if err == nil {
		a.say("%d packets", n)
	}
	return err
}

// captureWrite makes a file. It appears under its name when it is whole.
func (a *app) captureWrite(ctx context.Context, project string, q url.Values, f captureFlags) (err error) {
	out := a.out
	if f.write != "-" {
		file, err := os.CreateTemp(filepath.Dir(f.write), "."+filepath.Base(f.write)+".*")
		if err != nil {
			return fmt.Errorf("the capture cannot be written: %w", err)
		}
		defer func() {
			err = errors.Join(err, file.Close())
			if err == nil {
				err = os.Rename(file.Name(), f.write)
			}
			if err != nil {
				_ = os.Remove(file.Name()) // the first error is the one that counts
			}
		}()
		out = io.Writer(file)
	}
	w := pcapng.NewWriter(out)
	n := 0
	err = a.openCaptures(ctx, project, q, func() { a.say("capturing in project %s; Ctrl-C ends it", project) }, func(p snapshot.Captured) error {
		n++
		if !f.quiet && f.write != "-" {
			a.say("%s  %s", packetText(p.Data), pcapng.Comment(p))
		}
		return w.Write(p)
	})
	if err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("the capture cannot be written: %w", err)
	}
	a.say("%d packets in %s", n, f.write)
	return nil
}
