package explain

import (
	"fmt"
	"io"
	"net/netip"
	"strings"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot/policy"
)

// Answer is what happens to the packet. Its JSON field names are stable.
type Answer struct {
	// Error says why the question cannot be answered; Allow is false then.
	Error string `json:"error,omitempty"`
	Allow bool   `json:"allow"`
	// Rule decided: on deny the rule or default that denied; on allow the one
	// that is not a default, egress first, else the default of ingress.
	Rule policy.RuleID `json:"rule,omitempty"`
	// Direction of the side that decided: egress (at the source) or ingress.
	Direction string `json:"direction,omitempty"`
	Tier      string `json:"tier,omitempty"`
	// EgressRule and IngressRule are what each end said.
	EgressRule  policy.RuleID `json:"egressRule,omitempty"`
	IngressRule policy.RuleID `json:"ingressRule,omitempty"`
	// Reason is one sentence for people.
	Reason string `json:"reason"`
	// Proxy: rules about requests decide, and no request was asked about. Allow is
	// false then.
	Proxy bool `json:"proxy,omitempty"`
	// Decides says who does it: ebpf or proxy.
	Decides string `json:"decides,omitempty"`
	// Mesh is what proxies have to do with it; nil: nothing.
	Mesh *Mesh `json:"mesh,omitempty"`
	// Unknown are questions of rules whose answer was not known; what it depends
	// on was decided against the request.
	Unknown []string `json:"unknown,omitempty"`
	// Shadow is what Policies in mode audit would make of it, if different.
	Shadow   *Shadow `json:"shadow,omitempty"`
	Protocol string  `json:"protocol,omitempty"`
	Port     uint16  `json:"port,omitempty"`
	Source   *End    `json:"source,omitempty"`
	// Destination is where it ends, as the source knows it: behind a Service,
	// the backend.
	Destination *End `json:"destination,omitempty"`
	// Sent is the address, and the port, if any, that the source sends to.
	Sent string `json:"sent,omitempty"`
	// Service or FloatingIP, project/name, that answers to Sent, and the Backend
	// that was chosen.
	Service string `json:"service,omitempty"`
	Backend string `json:"backend,omitempty"`
	// Via are the function instances, project/workload, of a Link's chain.
	Via []string `json:"via,omitempty"`
	// TranslatedSource and TranslatedDestination are how the destination's side
	// sees the packet, empty when no different: address or address:port.
	TranslatedSource      string `json:"translatedSource,omitempty"`
	TranslatedDestination string `json:"translatedDestination,omitempty"`
	// Ways are all that are possible, when a hash chooses among several. What
	// is said above is then the first one that denies, or the first of all.
	Ways []Way `json:"ways,omitempty"`
	// Depends: some Ways allow and others deny; Allow is false then.
	Depends bool   `json:"depends,omitempty"`
	Steps   []Step `json:"steps"`
	// Record that was asked about, Then what it says, and how what would happen
	// now Differs; empty: it does not.
	Record  *record.Record `json:"record,omitempty"`
	Then    string         `json:"then,omitempty"`
	Differs string         `json:"differs,omitempty"`

	region string // of the addresses of a DNS name
}

// Shadow is the verdict if every Policy in mode audit were enforced.
type Shadow struct {
	Allow     bool          `json:"allow"`
	Rule      policy.RuleID `json:"rule"`
	Direction string        `json:"direction"`
}

// End is one side of the packet.
type End struct {
	Domain   string            `json:"domain,omitempty"`
	Project  string            `json:"project,omitempty"`
	Network  string            `json:"network,omitempty"`
	VNI      uint32            `json:"vni,omitempty"`
	Workload string            `json:"workload,omitempty"`
	Address  netip.Addr        `json:"address,omitzero"`
	MAC      string            `json:"mac,omitempty"`
	Node     string            `json:"node,omitempty"`
	Identity string            `json:"identity,omitempty"` // SPIFFE ID
	Number   uint32            `json:"identityNumber,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
}

// Names of the steps, in packet order.
const (
	StepInterface = "interface"
	StepSpoofing  = "anti-spoofing"
	StepNetwork   = "network"
	StepNames     = "names"
	StepPlatform  = "platform"
	StepRequest   = "request"
	StepService   = "service"
	StepFrontend  = "frontend"
	StepFloating  = "floating"
	StepChoice    = "choice"
	StepRoute     = "route"
	StepLink      = "link"
	StepChain     = "chain"
	StepOutside   = "outside"
	StepEgress    = "egress"
	StepIngress   = "ingress"
	StepMesh      = "mesh"
	StepVerdict   = "verdict"
)

// Results of a step.
const (
	ResultOK    = "ok"
	ResultAllow = "allow"
	ResultDeny  = "deny"
	ResultPass  = "pass"  // the next tier decides
	ResultAudit = "audit" // matched, but only counts for the shadow verdict
	ResultProxy = "proxy" // a proxy decides about each request
	ResultNone  = "none"
)

// Step is one stop of the packet.
type Step struct {
	Name   string `json:"name"`
	Result string `json:"result"`
	Text   string `json:"text"`
	// Node that takes the step.
	Node string        `json:"node,omitempty"`
	Tier string        `json:"tier,omitempty"`
	Rule policy.RuleID `json:"rule,omitempty"`
	// Object that the rule comes from, such as "Policy shop/db", and where it
	// is written when that is known.
	Object string `json:"object,omitempty"`
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
}

// ObjectOf names the object that a rule or default comes from.
func ObjectOf(id policy.RuleID) string {
	p := strings.Split(string(id), "/")
	switch {
	case p[0] == "policy" && len(p) == 5:
		return "Policy " + p[1] + "/" + p[2]
	case p[0] == "default" && len(p) == 4:
		return "Network " + p[1] + "/" + p[2]
	case p[0] == "isolated" && len(p) == 4:
		return "Policy " + p[1] + "/" + p[2]
	case p[0] == "gateway" && len(p) == 3:
		return "Network " + p[1] + "/" + p[2]
	}
	return ""
}

// Text writes the answer for people, one line for each step.
func (a Answer) Text(w io.Writer) {
	if a.Error != "" {
		fmt.Fprintf(w, "cannot tell: %s\n", a.Error)
		return
	}
	for _, s := range a.Steps {
		if s.Name == StepVerdict {
			continue
		}
		head := s.Name
		if s.Tier != "" {
			head += " " + s.Tier
		}
		fmt.Fprintf(w, "  %-18s %-6s %s%s\n", head, s.Result, s.Text, s.place())
	}
	word := "DENY "
	switch {
	case a.Allow:
		word = "ALLOW"
	case a.Depends:
		word = "DEPENDS"
	case a.Proxy:
		word = "PROXY"
	}
	fmt.Fprintf(w, "%s %s\n", word, a.Reason)
	switch {
	case a.Decides == ByProxy && !a.Proxy:
		fmt.Fprintln(w, "      decided by a proxy")
	case a.Mesh != nil && a.Decides == ByKernel:
		fmt.Fprintln(w, "      decided in the kernel (eBPF)")
	}
	if a.Then != "" {
		fmt.Fprintf(w, "      what happened, %s: %s\n", a.Record.Time.UTC().Format("2006-01-02 15:04:05Z"), a.Then)
	}
	if a.Differs != "" {
		fmt.Fprintf(w, "      %s\n", a.Differs)
	}
	for _, u := range a.Unknown {
		fmt.Fprintf(w, "      not known: %s\n", u)
	}
	if a.Shadow != nil {
		word = "deny"
		if a.Shadow.Allow {
			word = "allow"
		}
		fmt.Fprintf(w, "      with every audit Policy enforced: %s by %s (%s)\n", word, a.Shadow.Rule, a.Shadow.Direction)
	}
}

// place says where the rule is written.
func (s *Step) place() string {
	switch {
	case s.File != "":
		return fmt.Sprintf("  [%s, %s:%d]", s.Object, s.File, s.Line)
	case s.Object != "":
		return "  [" + s.Object + "]"
	}
	return ""
}
