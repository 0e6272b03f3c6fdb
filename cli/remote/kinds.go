package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"moire.dev/moire/cli/fault"
)

// Kind is one kind of object that the server keeps.
type Kind struct {
	Group, Version   string
	Kind             string
	Plural, Singular string
	Short            []string
	Namespaced       bool
}

const (
	ours, version = "moire.dev", "v1alpha1"
	standard      = "gateway.networking.k8s.io"
)

// Kinds are the kinds that every Moiré server has, in the order in which they
// depend on each other. A project is a Namespace.
func Kinds() []Kind {
	return []Kind{
		{ours, version, "Domain", "domains", "domain", []string{"dom"}, false},
		{"", "v1", "Namespace", "namespaces", "namespace", []string{"ns", "project", "projects"}, false},
		{ours, version, "Network", "networks", "network", []string{"net"}, true},
		{ours, version, "Node", "nodes", "node", []string{"no"}, false},
		{ours, version, "Link", "links", "link", nil, true},
		{ours, version, "Workload", "workloads", "workload", []string{"wl"}, true},
		{ours, version, "Service", "services", "service", []string{"svc"}, true},
		{ours, version, "FloatingIP", "floatingips", "floatingip", []string{"fip"}, true},
		{ours, version, "Policy", "policies", "policy", []string{"pol"}, true},
		{standard, "v1", "GatewayClass", "gatewayclasses", "gatewayclass", []string{"gc"}, false},
		{standard, "v1", "Gateway", "gateways", "gateway", []string{"gtw"}, true},
		{standard, "v1", "ReferenceGrant", "referencegrants", "referencegrant", []string{"refgrant"}, true},
		{standard, "v1", "HTTPRoute", "httproutes", "httproute", nil, true},
		{standard, "v1", "GRPCRoute", "grpcroutes", "grpcroute", nil, true},
		{standard, "v1", "TLSRoute", "tlsroutes", "tlsroute", nil, true},
		{standard, "v1", "TCPRoute", "tcproutes", "tcproute", nil, true},
		{ours, version, "BackendPolicy", "backendpolicies", "backendpolicy", nil, true},
		{ours, version, "FaultPolicy", "faultpolicies", "faultpolicy", nil, true},
	}
}

// Resource is the plural with the group, such as networks.moire.dev.
func (k Kind) Resource() string { return k.qualified(k.Plural) }

// Display is how objects are named in messages, such as network.moire.dev.
func (k Kind) Display() string { return k.qualified(k.Singular) }

func (k Kind) qualified(name string) string {
	if k.Group == "" {
		return name
	}
	return name + "." + k.Group
}

// APIVersion is group/version.
func (k Kind) APIVersion() string {
	if k.Group == "" {
		return k.Version
	}
	return k.Group + "/" + k.Version
}

// Path is the URL path of the collection (empty name) or of one object. An
// empty namespace is all namespaces.
func (k Kind) Path(namespace, name string) string {
	var b strings.Builder
	if k.Group == "" {
		b.WriteString("/api/" + k.Version)
	} else {
		b.WriteString("/apis/" + k.Group + "/" + k.Version)
	}
	if k.Namespaced && namespace != "" {
		b.WriteString("/namespaces/" + namespace)
	}
	b.WriteString("/" + k.Plural)
	if name != "" {
		b.WriteString("/" + name)
	}
	return b.String()
}

// answersTo says whether word (plural, singular, short name or kind, in any
// case) is a name of k in group; an empty group is any.
func (k Kind) answersTo(word, group string) bool {
	if group != "" && group != k.Group && group != k.Version+"."+k.Group {
		return false
	}
	word = strings.ToLower(word)
	return word == k.Plural || word == k.Singular || word == strings.ToLower(k.Kind) || slices.Contains(k.Short, word)
}

// Find resolves what people type: networks, net, Network, networks.moire.dev.
// Kinds that are not ours are looked up on the server.
func (c *Client) Find(ctx context.Context, word string) (Kind, error) {
	name, group, _ := strings.Cut(word, ".")
	for _, k := range Kinds() {
		if k.answersTo(name, group) {
			return k, nil
		}
	}
	more, err := c.discover(ctx)
	if err != nil {
		return Kind{}, err
	}
	for _, k := range more {
		if k.answersTo(name, group) {
			return k, nil
		}
	}
	return Kind{}, fault.Usagef("use one of networks (net), links, workloads (wl), services (svc), floatingips (fip), policies (pol), httproutes and other routes, backendpolicies, faultpolicies, nodes (no), domains (dom), namespaces (ns) or all",
		"the server has no kind %q", word)
}

// FindKind resolves apiVersion and kind as they stand in a file.
func (c *Client) FindKind(ctx context.Context, apiVersion, kind string) (Kind, error) {
	match := func(k Kind) bool { return k.APIVersion() == apiVersion && k.Kind == kind }
	if i := slices.IndexFunc(Kinds(), match); i >= 0 {
		return Kinds()[i], nil
	}
	more, err := c.discover(ctx)
	if err != nil {
		return Kind{}, err
	}
	if i := slices.IndexFunc(more, match); i >= 0 {
		return more[i], nil
	}
	return Kind{}, fault.Usagef("mend apiVersion and kind; the kinds of Moiré are Domain, Network, Node, Link, Workload, Service, FloatingIP, Policy, BackendPolicy and FaultPolicy of moire.dev/v1alpha1, and the routes of the Gateway API",
		"the server has no kind %s of %s", kind, apiVersion)
}

// catalog is what discovery found.
type catalog struct {
	mu    sync.Mutex
	done  bool
	kinds []Kind
}

// discover asks for every kind of the server, once.
func (c *Client) discover(ctx context.Context) ([]Kind, error) {
	c.found.mu.Lock()
	defer c.found.mu.Unlock()
	if c.found.done {
		return c.found.kinds, nil
	}
	c.found.kinds = nil
	for _, path := range []string{"/api", "/apis"} {
		answer, err := c.Do(ctx, Request{Path: path, Accept: "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"})
		if err != nil {
			return nil, err
		}
		if err := c.found.add(answer.Body); err != nil {
			return nil, fmt.Errorf("discovery at %s%s: %w", c.Server, path, err)
		}
	}
	c.found.done = true
	return c.found.kinds, nil
}

func (f *catalog) add(body []byte) error {
	var list struct {
		Items []struct {
			Metadata struct {
				Name string `json:"name"`
			} `json:"metadata"`
			Versions []struct {
				Version   string `json:"version"`
				Resources []struct {
					Resource     string `json:"resource"`
					Singular     string `json:"singularResource"`
					Scope        string `json:"scope"`
					ResponseKind struct {
						Kind string `json:"kind"`
					} `json:"responseKind"`
					ShortNames []string `json:"shortNames"`
				} `json:"resources"`
			} `json:"versions"`
		} `json:"items"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return err
	}
	for _, g := range list.Items {
		for _, v := range g.Versions {
			for _, r := range v.Resources {
				singular := r.Singular
				if singular == "" {
					singular = strings.ToLower(r.ResponseKind.Kind)
				}
				f.kinds = append(f.kinds, Kind{g.Metadata.Name, v.Version, r.ResponseKind.Kind,
					r.Resource, singular, r.ShortNames, r.Scope == "Namespaced"})
			}
		}
	}
	return nil
}
