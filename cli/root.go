package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/remote"
	"moire.dev/moire/cli/show"
)

// Version of the build; the linker sets it.
var Version = "dev"

// app is what every command shares: the three streams and the global flags.
type app struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
	// telling makes lines on err whole.
	telling sync.Mutex

	kubeconfig string
	context    string
	namespace  string
	project    string
	timeout    time.Duration
}

// Main runs moire with args (without the program's name) and returns the exit
// code.
func Main(args []string, in io.Reader, out, errs io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{in: in, out: out, err: errs, getenv: os.Getenv}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return fault.OK
	}
	if errors.Is(err, syscall.EPIPE) {
		// Whoever read us (head, less) has seen enough.
		return fault.OK
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return 128 + int(syscall.SIGINT)
	}
	if !fault.Silent(err) {
		fmt.Fprintln(errs, "error: "+err.Error())
	}
	return fault.Code(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "moire",
		Short: "Tenant networks and service mesh as one system",
		Long: `moire is the command line of Moiré: tenant networks and service mesh as one system.

Verbs, flags and columns are kubectl's; a project is a namespace, so -p and -n
are the same. Data goes to standard output, progress and errors to standard
error. Exit codes: 0 ok, 1 a check failed or something differs, 2 wrong usage
or input, 3 the server cannot be reached, 4 forbidden, 5 timeout.`,
		Args:          unknownCommand,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		// Near enough to be a slip of the fingers.
		SuggestionsMinimumDistance: 2,
		CompletionOptions:          cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fault.Usagef("see "+c.CommandPath()+" --help", "%v", err)
	})
	f := root.PersistentFlags()
	f.StringVar(&a.kubeconfig, "kubeconfig", "", "kubeconfig file (default: $KUBECONFIG, "+remote.LocalKubeconfig+", ~/.kube/config)")
	f.StringVar(&a.context, "context", "", "context of the kubeconfig (default: its current one)")
	f.StringVarP(&a.namespace, "namespace", "n", "", "the same as --project")
	f.StringVarP(&a.project, "project", "p", "", "project to work in (default: that of the kubeconfig's context)")
	f.DurationVar(&a.timeout, "request-timeout", 30*time.Second, "how long one request may take; 0 is no limit")
	root.AddGroup(
		&cobra.Group{ID: "start", Title: "Start here:"},
		&cobra.Group{ID: "objects", Title: "Objects:"},
		&cobra.Group{ID: "see", Title: "See what happens and why:"},
		&cobra.Group{ID: "work", Title: "Workloads on this machine:"},
	)
	a.add(root, "start", a.demoCommand(), a.upCommand(), a.downCommand(), a.checkCommand(), a.statusCommand())
	a.add(root, "objects", a.applyCommand(), a.getCommand(), a.describeCommand(), a.diffCommand(), a.deleteCommand())
	a.add(root, "see", a.explainCommand(), a.analyzeCommand(), a.traceCommand(), a.flowsCommand(), a.tapCommand(), a.topCommand(), a.captureCommand(), a.proxyCommand())
	a.add(root, "work", a.runCommand(), a.execCommand(), a.attachCommand(), a.detachCommand())
	a.add(root, "", a.identityCommand(), a.tokenCommand(), a.versionCommand(), a.completionCommand())
	return root
}

// unknownCommand refuses what is no command, and says which one may be meant.
func unknownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		return fault.Usagef("did you mean: "+c.CommandPath()+" "+strings.Join(near, ", "), "%s has no command %q", c.CommandPath(), args[0])
	}
	return fault.Usagef("see "+c.CommandPath()+" --help", "%s has no command %q", c.CommandPath(), args[0])
}

// add puts commands into a group of the help text and turns cobra's complaints
// about arguments into usage errors.
func (a *app) add(parent *cobra.Command, group string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = group
		if check := c.Args; check != nil {
			c.Args = func(c *cobra.Command, args []string) error {
				if err := check(c, args); err != nil {
					return asUsage(c, err)
				}
				return nil
			}
		}
		parent.AddCommand(c)
	}
}

func asUsage(c *cobra.Command, err error) error {
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return err
	}
	return fault.Usagef("see "+c.CommandPath()+" --help", "%v", err)
}

// workspace is the project given by flags, empty if none was.
func (a *app) workspace() (string, error) {
	if a.namespace != "" && a.project != "" && a.namespace != a.project {
		return "", fault.Usagef("give one of them", "--namespace %s and --project %s are the same thing and differ", a.namespace, a.project)
	}
	name := a.namespace + a.project
	if a.namespace != "" {
		name = a.namespace
	}
	if strings.ContainsAny(name, "/?%# ") {
		return "", fault.Usagef("use the name as `moire get namespaces` shows it", "%q is not the name of a project", name)
	}
	return name, nil
}

// client opens the connection that the flags ask for.
func (a *app) client() (*remote.Client, error) {
	project, err := a.workspace()
	if err != nil {
		return nil, err
	}
	if a.timeout < 0 {
		return nil, fault.Usagef("use a duration such as 30s, or 0 for no limit", "--request-timeout %s is negative", a.timeout)
	}
	c, err := remote.Open(remote.Config{
		Kubeconfig: a.kubeconfig, Context: a.context, Namespace: project,
		Timeout: a.timeout, Agent: "moire/" + Version, Getenv: a.getenv,
	})
	if err != nil {
		return nil, err
	}
	c.Warn = func(text string) { a.say("warning: %s", text) }
	return c, nil
}

// say prints a line for people on standard error.
func (a *app) say(format string, args ...any) {
	a.telling.Lock()
	defer a.telling.Unlock()
	fmt.Fprintln(a.err, show.Plain(fmt.Sprintf(format, args...)))
}

// print prints a line of data.
func (a *app) print(format string, args ...any) error {
	_, err := fmt.Fprintf(a.out, format+"\n", args...)
	return err
}

func (a *app) paint() show.Paint { return show.PaintFor(a.out, a.getenv) }
