package cli

import (
	"github.com/spf13/cobra"

	"moire.dev/moire/cli/fault"
)

func (a *app) tapCommand() *cobra.Command {
	f := flowsFlags{follow: true, since: "0s", requestFlags: requestFlags{kind: ofRequests}}
	c := &cobra.Command{
		Use:   "tap",
		Short: "Show requests as they happen",
		Long: `Show the requests of now, one line each when it is over: caller, endpoint,
method, path, status, latency, the route that was taken and the rule that decided.
Only what goes through a proxy is a request; 'moire flows' shows sessions, too, and
what was before. Without -p those of every project that you may see are shown.`,
		Example: `  moire tap -p shop
  moire tap --to shop/cart --status 5xx -o wide
  moire tap --from shop/web --method GET --path /cart --count 10 -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.count < 0 {
				return fault.Usagef("use a number such as 10", "--count %d is negative", f.count)
			}
			return a.flows(c.Context(), f)
		},
	}
	f.requestFlags.add(c.Flags())
	f.ends(c.Flags())
	c.Flags().IntVar(&f.count, "count", 0, "end after so many requests (default: go on)")
	return c
}
