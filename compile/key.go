package compile

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

// DefaultAccount is the account of a Workload that names none.
const DefaultAccount = v1alpha1.DefaultAccount

// KeyOf is the canonical form "domain/project/account?key=value&key=value" of
// an identity, each part URL-escaped and the labels sorted. Number and SPIFFE
// do not count.
func KeyOf(id snapshot.Identity) IdentityKey {
	var b strings.Builder
	b.WriteString(url.QueryEscape(id.Domain))
	b.WriteByte('/')
	b.WriteString(url.QueryEscape(id.Project))
	b.WriteByte('/')
	b.WriteString(url.QueryEscape(id.Account))
	for i, l := range sortedLabels(id.Labels) {
		b.WriteByte("?&"[min(i, 1)])
		b.WriteString(url.QueryEscape(l.Key))
		b.WriteByte('=')
		b.WriteString(url.QueryEscape(l.Value))
	}
	return IdentityKey(b.String())
}

// ParseKey is the inverse of KeyOf.
func ParseKey(k IdentityKey) (snapshot.Identity, error) {
	var id snapshot.Identity
	who, labels, _ := strings.Cut(string(k), "?")
	parts := strings.Split(who, "/")
	if len(parts) != 3 {
		return id, fmt.Errorf("identity key %q is not domain/project/account", k)
	}
	for i, to := range []*string{&id.Domain, &id.Project, &id.Account} {
		s, err := url.QueryUnescape(parts[i])
		if err != nil {
			return snapshot.Identity{}, fmt.Errorf("identity key %q: %w", k, err)
		}
		*to = s
	}
	for label := range strings.SplitSeq(labels, "&") {
		if label == "" {
			continue
		}
		key, value, _ := strings.Cut(label, "=")
		key, err := url.QueryUnescape(key)
		if err != nil {
			return snapshot.Identity{}, fmt.Errorf("identity key %q: %w", k, err)
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return snapshot.Identity{}, fmt.Errorf("identity key %q: %w", k, err)
		}
		id.Labels = append(id.Labels, snapshot.Label{Key: key, Value: value})
	}
	if KeyOf(id) != k {
		return snapshot.Identity{}, fmt.Errorf("identity key %q is not in canonical form", k)
	}
	return id, nil
}

// sortedLabels returns labels in order of their keys; sorted ones as they are.
func sortedLabels(labels []snapshot.Label) []snapshot.Label {
	order := func(a, b snapshot.Label) int {
		if c := strings.Compare(a.Key, b.Key); c != 0 {
			return c
		}
		return strings.Compare(a.Value, b.Value)
	}
	if slices.IsSortedFunc(labels, order) {
		return labels
	}
	labels = slices.Clone(labels)
	slices.SortFunc(labels, order)
	return labels
}

// LabelsOf is a label map as a sorted list.
func LabelsOf(labels map[string]string) []snapshot.Label {
	if len(labels) == 0 {
		return nil
	}
	out := make([]snapshot.Label, 0, len(labels))
	for k, v := range labels {
		out = append(out, snapshot.Label{Key: k, Value: v})
	}
	return sortedLabels(out)
}

// declaredIdentity is who a declared Workload is, without a number.
func declaredIdentity(w *v1alpha1.Workload, domain string) snapshot.Identity {
	account := w.Spec.Account
	if account == "" {
		account = DefaultAccount
	}
	return snapshot.Identity{Domain: domain, Project: w.Namespace, Account: account, Labels: LabelsOf(w.Labels)}
}

// attachedIdentity is who an attachment is, without a number: what the
// declared Workload of its name says, else what the attacher claimed.
func attachedIdentity(a *snapshot.Attachment, w *v1alpha1.Workload, domain string) snapshot.Identity {
	if w != nil {
		return declaredIdentity(w, domain)
	}
	account := a.Account
	if account == "" {
		account = DefaultAccount
	}
	return snapshot.Identity{Domain: domain, Project: a.Project, Account: account, Labels: sortedLabels(a.Labels)}
}

// TrustDomain is spec.trustDomain or its default "<name>.moire".
func TrustDomain(d *v1alpha1.Domain) string {
	if d.Spec.TrustDomain != "" {
		return d.Spec.TrustDomain
	}
	return d.Name + ".moire"
}

func spiffe(trust, project, account string) string {
	return "spiffe://" + trust + "/ns/" + project + "/sa/" + account
}
