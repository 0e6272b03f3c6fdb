package snapshot

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// Mode says whether a Workload is in the mesh, and whom it lets in. Between two
// Workloads that are in the mesh every TCP session goes through the proxies of
// both, in TLS 1.3, to the destination's own address and port.
type Mode uint8

// Modes of a Workload, resolved from Workload, project and Domain.
const (
	Off        Mode = iota // not in the mesh: plain bytes in and out
	Permissive             // TLS among those in the mesh; plain bytes of others are let in
	Strict                 // plain bytes are refused
)

// String is off, permissive or strict.
func (m Mode) String() string {
	switch m {
	case Permissive:
		return "permissive"
	case Strict:
		return "strict"
	}
	return "off"
}

// Trust is what the certificates of one trust domain must come from.
type Trust struct {
	// Name is TrustDomain, or for a foreign one TrustDomain/Domain: as that Domain
	// was given its bundle. Another Domain may have been given another one.
	Name        string
	TrustDomain string
	// Domain that it is the trust domain of; "" when it is foreign.
	Domain string
	// Roots, DER, sorted: all that are good now. A rotation has two for a while.
	Roots [][]byte
	// Keys that sign JWT-SVIDs of the trust domain: a JWK set (RFC 7517).
	Keys []byte
	// Federates are the names of the Trusts whose Workloads are believed here too,
	// sorted.
	Federates []string
}

// String shows the roots by their fingerprints.
func (t Trust) String() string {
	roots := make([]string, 0, len(t.Roots))
	for _, r := range t.Roots {
		roots = append(roots, fmt.Sprintf("%x", sha256.Sum256(r)))
	}
	return fmt.Sprintf("{Name:%s TrustDomain:%s Domain:%s Roots:%s Keys:%s Federates:%s}", t.Name, t.TrustDomain, t.Domain, roots, t.Keys, t.Federates)
}

// Mark names the roots: 16 hex digits that are others when these are. Who
// resumes TLS sessions keeps those of each Mark apart.
func (t Trust) Mark() string {
	h := sha256.New()
	for _, r := range t.Roots {
		fingerprint := sha256.Sum256(r)
		h.Write(fingerprint[:])
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// TrustMark says which roots a node has of a Trust.
type TrustMark struct{ Name, Mark string }

// MarksOf lists the marks of Trusts, sorted by name.
func MarksOf(trusts map[string]Trust) []TrustMark {
	out := make([]TrustMark, 0, len(trusts))
	for name, t := range trusts {
		out = append(out, TrustMark{name, t.Mark()})
	}
	slices.SortFunc(out, func(a, b TrustMark) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// FrontendKey is an address of a Service as the Workloads of one project see it:
// an HTTPRoute in the project of its callers is for those alone (GEP-1426).
type FrontendKey struct {
	ServiceKey
	// Project of the callers; "": of all that have no Frontend of their own.
	Project string
}

// Frontend is an address of a Service that callers reach by their proxy, because
// routes, faults or a BackendPolicy are attached to it. A Service without
// Frontend is the kernel's alone, unless mesh callers and backends need TLS.
type Frontend struct {
	FrontendKey
	// Service is project/name.
	Service string
	// Protocol that its callers speak: AutoHTTP, HTTP1, HTTP2, TLS or TCP.
	Protocol l7.Protocol
	// Cluster takes what no route takes; "": then there is 404, or for a route
	// that matched but has no valid backend 500.
	Cluster string
	// Routes by name, in Snapshot.Routes, sorted.
	Routes []string
	// Why the caller's proxy is needed: "HTTPRoute shop/cart", for people.
	Why string
}

// Cluster is a destination of routes: the backends of a Service port, as they
// are in Snapshot.Services, with what a BackendPolicy says about them. Its name
// is ClusterName of Service.
type Cluster struct {
	// Cluster without Endpoints.
	l7.Cluster
	// Service whose Backends are its endpoints; of its two families the first.
	Service ServiceKey
	// Second, when valid, is the same port of the other family.
	Second ServiceKey
	// Asked: rules ask it about requests (policy.External); no route leads there.
	Asked bool
}

// Compare orders by address and port, then by project.
func (k FrontendKey) Compare(o FrontendKey) int {
	return cmp.Or(k.ServiceKey.Compare(o.ServiceKey), cmp.Compare(k.Project, o.Project))
}

// ClusterName is the name of the Cluster that is a port of a Service, in both
// families.
func ClusterName(s *Service) string {
	return fmt.Sprintf("%d/%s/%s/%d", s.Addr.VNI, s.Project, s.Name, s.Port)
}

// ClusterAs is the name of the Cluster that is spoken to in another protocol than
// the Service says.
func ClusterAs(s *Service, p l7.Protocol) string { return ClusterName(s) + "/" + string(p) }

// RouteObject is what people wrote that became a Route, by its name: "HTTPRoute
// shop/cart". It is "" for the default of a Frontend, and the name itself when it
// is of another form.
func RouteObject(name string) string {
	parts := strings.SplitN(name, "/", 4)
	if parts[0] == "default" {
		return ""
	}
	if len(parts) < 4 || !strings.HasSuffix(parts[1], "Route") && parts[1] != "Service" {
		return name
	}
	object, _, _ := strings.Cut(parts[3], "@")
	if parts[1] == "Service" {
		object, _, _ = strings.Cut(object, "/") // behind it is the port
	}
	return parts[1] + " " + parts[2] + "/" + object
}

// Meshed says whether callers in the mesh reach a Service by their proxy although
// it has no Frontend: it is TCP of one Network, and some backend is in the mesh.
func (s *Snapshot) Meshed(service *Service) bool {
	if service.Protocol != policy.TCP || service.Port == 0 || service.Floating {
		return false
	}
	return slices.ContainsFunc(service.Backends, func(b Backend) bool {
		e, ok := s.Endpoints[b.Addr]
		return ok && b.Addr.VNI == service.Addr.VNI && e.Mode != Off
	})
}
