package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"moire.dev/moire/control"
)

func tokenCommand(cfg *control.Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Create, list and revoke the tokens with which nodes join",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q; use create, list or revoke", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(createCommand(cfg), listCommand(cfg), revokeCommand(cfg))
	return cmd
}

func createCommand(cfg *control.Config) *cobra.Command {
	var life time.Duration
	var once bool
	var note string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token and print it; it cannot be shown again",
		Args:  none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if life <= 0 {
				return usageError{fmt.Errorf("--life %s must be positive", life)}
			}
			token, err := control.NewToken(*cfg, life, once, note)
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), token)
			}
			return err
		},
	}
	cmd.Flags().DurationVar(&life, "life", 24*time.Hour, "how long the token is good")
	cmd.Flags().BoolVar(&once, "once", false, "the token ends with its first use")
	cmd.Flags().StringVar(&note, "note", "", "a note for people")
	return cmd
}

func listCommand(cfg *control.Config) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the tokens that are good",
		Args:  none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := control.Tokens(*cfg)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
			fmt.Fprintln(w, "ID\tEXPIRES\tUSE\tNOTE")
			for _, t := range all {
				use := "any number of nodes"
				if t.Once {
					use = "one node"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", t.ID, t.Expires.UTC().Format(time.RFC3339), use, t.Note)
			}
			return w.Flush()
		},
	}
}

func revokeCommand(cfg *control.Config) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "End a token before its time; nodes that joined with it stay",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("%s needs the id of one token; see moired token list", cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return control.RevokeToken(*cfg, args[0]) },
	}
}
