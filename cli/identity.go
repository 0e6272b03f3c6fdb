package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/remote"
)

func (a *app) identityCommand() *cobra.Command {
	identity := &cobra.Command{
		Use:   "identity",
		Short: "Show and rotate the CA of a Domain, exchange bundles with others",
		Args:  unknownCommand,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	show := &cobra.Command{
		Use:     "show DOMAIN",
		Short:   "Show the roots of a Domain and how far a rotation is",
		Example: "  moire identity show acme",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return a.identityShow(c.Context(), args[0]) },
	}
	var hold, hurry, drop bool
	rotate := &cobra.Command{
		Use:   "rotate DOMAIN",
		Short: "Replace the root of a Domain by overlap",
		Long: `Replace the root of a Domain by overlap: the next root is made known everywhere,
then it signs, and the former one goes when nothing that it signed is alive.
Nothing has to be restarted; 'moire identity show' says how far it is.`,
		Example: `  moire identity rotate acme
  moire identity rotate acme --hold     # partners must get the new bundle first
  moire identity rotate acme            # goes on`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var orders []string
			for order, given := range map[string]bool{v1alpha1.RotateHold: hold, v1alpha1.RotateHurry: hurry, v1alpha1.RotateDrop: drop} {
				if given {
					orders = append(orders, order)
				}
			}
			if len(orders) > 1 {
				return fault.Usagef("choose one", "--hold, --hurry and --compromised say different things")
			}
			return a.identityRotate(c.Context(), args[0], strings.Join(orders, ""))
		},
	}
	rotate.Flags().BoolVar(&hold, "hold", false, "make the next root known, and do not let it sign until this command is given again without --hold")
	rotate.Flags().BoolVar(&hurry, "hurry", false, "do not wait for nodes that are away")
	rotate.Flags().BoolVar(&drop, "compromised", false, "forget the former root at once: its key was stolen. Connections of those who have no new certificate yet break")
	var asPEM bool
	bundle := &cobra.Command{
		Use:   "bundle DOMAIN",
		Short: "Print what others must have to believe a Domain",
		Example: `  moire identity bundle acme > acme.json          # SPIFFE bundle
  moire identity bundle acme --pem > acme.pem`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.identityBundle(c.Context(), args[0], asPEM) },
	}
	bundle.Flags().BoolVar(&asPEM, "pem", false, "certificates alone, as PEM")
	federate := &cobra.Command{
		Use:     "federate DOMAIN TRUST-DOMAIN FILE",
		Short:   "Give a Domain the bundle of a foreign trust domain, or another one",
		Example: "  moire identity federate acme partner.example partner.json",
		Args:    cobra.ExactArgs(3),
		RunE: func(c *cobra.Command, args []string) error {
			return a.identityFederate(c.Context(), args[0], args[1], args[2])
		},
	}
	a.add(identity, "", show, rotate, bundle, federate)
	return identity
}

func domainPath(name string) string {
	return "/apis/" + v1alpha1.GroupVersion.String() + "/domains/" + url.PathEscape(name)
}

// domain reads a Domain from the server.
func (a *app) domain(ctx context.Context, name string) (*v1alpha1.Domain, error) {
	return a.askDomain(ctx, http.MethodGet, name, nil)
}

// askDomain sends a merge patch, or nothing, and returns the Domain.
func (a *app) askDomain(ctx context.Context, method, name string, patch any) (*v1alpha1.Domain, error) {
	client, err := a.client()
	if err != nil {
		return nil, err
	}
	var body []byte
	if patch != nil {
		if body, err = json.Marshal(patch); err != nil {
			return nil, err
		}
	}
	answer, err := client.Do(ctx, remote.Request{Method: method, Path: domainPath(name), Type: "application/merge-patch+json", Body: body})
	if err != nil {
		return nil, err
	}
	var d v1alpha1.Domain
	return &d, json.Unmarshal(answer.Body, &d)
}

func (a *app) identityShow(ctx context.Context, name string) error {
	d, err := a.domain(ctx, name)
	if err != nil {
		return err
	}
	id := d.Status.Identity
	if id == nil {
		return noCA(name)
	}
	text := fmt.Sprintf("%s since %s", id.Phase, id.Since.UTC().Format(time.RFC3339))
	if id.Message != "" {
		text += ": " + id.Message
	}
	if err := a.print("%s", text); err != nil {
		return err
	}
	for _, r := range id.Roots {
		line := fmt.Sprintf("%-8s %s  ends %s", r.State, r.Fingerprint, r.NotAfter.UTC().Format(time.RFC3339))
		if r.External {
			line += "  external"
		}
		if r.Until != nil {
			line += "  goes " + r.Until.UTC().Format(time.RFC3339)
		}
		if err := a.print("%s", line); err != nil {
			return err
		}
	}
	return nil
}

func noCA(name string) error {
	return fault.New(fault.Failed, "wait a few seconds, then look at `moire describe domain "+name+"` and the log of moired", "Domain %s has no CA yet", name)
}

// identityRotate begins a rotation, or gives one that is going on another order.
func (a *app) identityRotate(ctx context.Context, name, order string) error {
	d, err := a.domain(ctx, name)
	if err != nil {
		return err
	}
	if d.Status.Identity == nil {
		return noCA(name)
	}
	annotations := map[string]any{v1alpha1.RotateOrder: nil}
	if order != "" {
		annotations[v1alpha1.RotateOrder] = order
	}
	begins := d.Status.Identity.Phase == v1alpha1.PhaseSteady
	if begins {
		annotations[v1alpha1.RotateRoot] = time.Now().UTC().Format(time.RFC3339Nano)
	}
	if _, err := a.askDomain(ctx, http.MethodPatch, name, map[string]any{"metadata": map[string]any{"annotations": annotations}}); err != nil {
		return err
	}
	if begins {
		a.say("the root of %s is being replaced; `moire identity show %s` says how far it is", name, name)
	} else {
		a.say("a rotation of %s is going on, and was told; `moire identity show %s` says how far it is", name, name)
	}
	return nil
}

func (a *app) identityBundle(ctx context.Context, name string, asPEM bool) error {
	d, err := a.domain(ctx, name)
	if err != nil {
		return err
	}
	if d.Status.Identity == nil || d.Status.Identity.Bundle == "" {
		return noCA(name)
	}
	if !asPEM {
		return a.print("%s", d.Status.Identity.Bundle)
	}
	bundle, err := v1alpha1.ParseBundle(d.Status.Identity.Bundle)
	if err != nil {
		return fmt.Errorf("the bundle of Domain %s: %w", name, err)
	}
	_, err = a.out.Write(bundle.PEM())
	return err
}

// identityFederate puts a bundle into spec.federates, in the place of the one
// that is there for the trust domain.
func (a *app) identityFederate(ctx context.Context, name, trustDomain, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fault.Usagef("give a file with the bundle of "+trustDomain, "%v", err)
	}
	if _, err := v1alpha1.ParseBundle(string(text)); err != nil {
		return fault.Usagef("give certificates of CAs as PEM, or a SPIFFE bundle as JSON", "%s cannot be read: %v", file, err)
	}
	d, err := a.domain(ctx, name)
	if err != nil {
		return err
	}
	all := slices.DeleteFunc(slices.Clone(d.Spec.Federates), func(f v1alpha1.Federation) bool { return f.TrustDomain == trustDomain })
	all = append(all, v1alpha1.Federation{TrustDomain: trustDomain, Bundle: string(text)})
	// With the version that was read, nobody's change in between is lost.
	patch := map[string]any{"metadata": map[string]any{"resourceVersion": d.ResourceVersion}, "spec": map[string]any{"federates": all}}
	if _, err := a.askDomain(ctx, http.MethodPatch, name, patch); err != nil {
		return err
	}
	a.say("%s believes Workloads of %s now to be who they say; what they may do is for Policies", name, trustDomain)
	return nil
}
