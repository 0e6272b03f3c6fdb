package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"moire.dev/moire/cli/remote"
	"moire.dev/moire/cli/show"
)

func (a *app) versionCommand() *cobra.Command {
	var clientOnly bool
	var output string
	c := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of client and server",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return a.version(c.Context(), clientOnly, output) },
	}
	c.Flags().BoolVar(&clientOnly, "client", false, "only that of the client; asks no server")
	c.Flags().StringVarP(&output, "output", "o", "", "json or yaml")
	return c
}

func (a *app) version(ctx context.Context, clientOnly bool, output string) error {
	format, err := show.ParseFormat(output, show.JSON, show.YAML)
	if err != nil {
		return err
	}
	versions := map[string]any{"client": map[string]any{
		"version": Version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
	}}
	var failed error
	if !clientOnly {
		server, err := a.serverVersion(ctx)
		if err != nil {
			failed = err
		} else {
			versions["server"] = server
		}
	}
	if format.Kind != show.AsTable {
		if err := format.Write(a.out, versions); err != nil {
			return err
		}
		return failed
	}
	if err := a.print("Client Version: %s (%s, %s/%s)", Version, runtime.Version(), runtime.GOOS, runtime.GOARCH); err != nil {
		return err
	}
	if server, ok := versions["server"].(map[string]any); ok {
		return a.print("Server Version: %v (%v)", server["version"], server["platform"])
	}
	return failed
}

// serverVersion asks for the version of the API server in moired.
func (a *app) serverVersion(ctx context.Context) (map[string]any, error) {
	client, err := a.client()
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(ctx, remote.Request{Path: "/version"})
	if err != nil {
		return nil, err
	}
	var v struct {
		GitVersion string `json:"gitVersion"`
		Platform   string `json:"platform"`
	}
	if err := json.Unmarshal(answer.Body, &v); err != nil {
		return nil, fmt.Errorf("the version of the server cannot be read: %w", err)
	}
	return map[string]any{"version": v.GitVersion, "platform": v.Platform, "address": client.Server}, nil
}

func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print a completion script for a shell",
		Example: `  source <(moire completion bash)
  moire completion zsh > "${fpath[1]}/_moire"
  moire completion fish > ~/.config/fish/completions/moire.fish`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(c *cobra.Command, args []string) error {
			switch args[0] {
			case "zsh":
				return c.Root().GenZshCompletion(a.out)
			case "fish":
				return c.Root().GenFishCompletion(a.out, true)
			}
			return c.Root().GenBashCompletionV2(a.out, true)
		},
	}
}

// completeObjects completes the kind, then names from the server.
func (a *app) completeObjects(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		var words []string
		for _, k := range remote.Kinds() {
			words = append(words, k.Plural)
		}
		return append(words, "all"), cobra.ShellCompDirectiveNoFileComp
	}
	client, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	kind, err := client.Find(c.Context(), args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names, err := namesOf(c.Context(), client, kind, "")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var fit []string
	for _, n := range names {
		if strings.HasPrefix(n, typed) {
			fit = append(fit, n)
		}
	}
	return fit, cobra.ShellCompDirectiveNoFileComp
}
