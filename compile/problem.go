package compile

import (
	"cmp"
	"fmt"
	"slices"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot/policy"
)

// Codes of the Problems that only show when all objects are seen together.
// MOI2xxx: something is not connected or not as declared. MOI3xxx: warnings.
const (
	codeNoNetwork       = "MOI2001"
	codeNoNode          = "MOI2002"
	codeNoDomain        = "MOI2003"
	codeProjectNoDomain = "MOI2004"
	codeNoProject       = "MOI2005"
	codeNoPeerNetwork   = "MOI2006"
	codeDuplicate       = "MOI2010"
	codeOutside         = "MOI2011"
	codeReserved        = "MOI2012"
	codeSpecial         = "MOI2013"
	codeHeld            = "MOI2014"
	codeInUse           = "MOI2015"
	codeExhausted       = "MOI2016"
	codePrefixInUse     = "MOI2017"
	codeDuplicateMAC    = "MOI2018"
	codeDuplicateNode   = "MOI2019"
	codeExternal        = "MOI2020"
	codeTwoNodes        = "MOI2021"
	codeRefused         = "MOI2022"
	codeTwin            = "MOI2023"
	codeSelector        = "MOI2024"
	codeNoConsent       = "MOI2025"
	codeLinkOverlap     = "MOI2026"
	codeNotInPool       = "MOI2027"
	codeVIPTaken        = "MOI2028"
	codeNoInstance      = "MOI2029"
	codeFunction        = "MOI2030"
	codeChain           = "MOI2031"
	codeNoBackend       = "MOI2032"
	codeNoTarget        = "MOI2033"
	codeGateway         = "MOI2034"
	codeEgressTaken     = "MOI2035"
	codeNoService       = "MOI2036"
	codeLockOut         = "MOI2037"
	codeNoExit          = "MOI2038"
	codeForeignName     = "MOI2040"
	codeNoProxy         = "MOI2041"
	codeMode            = "MOI2042"
	codeTrustTaken      = "MOI2061"
	codeFederation      = "MOI2062"
	codeNoParent        = "MOI2070"
	codeNotAllowed      = "MOI2071"
	codeConflicted      = "MOI2072"
	codeUnsupported     = "MOI2073"
	codeNoDestination   = "MOI2074"
	codeNotPermitted    = "MOI2075"
	codeInvalidKind     = "MOI2076"
	codeProtocol        = "MOI2077"
	codeNoTargetObject  = "MOI2078"
	codeInvalidPolicy   = "MOI2079"
	codeEdge            = "MOI2080"
	codeListener        = "MOI2081"
	codeCertificate     = "MOI2082"
	codeNoHostname      = "MOI2083"
	codeNobodySelected  = "MOI3001"
	codeNeverMatches    = "MOI3002"
	codeShadowed        = "MOI3003"
	codeNoEffect        = "MOI3010"
)

// about is a Problem without its place in a file.
func about(code, object, field, reason, fix string) v1alpha1.Problem {
	return v1alpha1.Problem{Code: code, Object: object, Field: field, Reason: reason, Fix: fix}
}

func warn(p v1alpha1.Problem) v1alpha1.Problem {
	p.Warning = true
	return p
}

func networkName(k Key) string  { return "Network " + k.String() }
func workloadName(k Key) string { return "Workload " + k.String() }
func policyName(p *v1alpha1.Policy) string {
	return "Policy " + p.Namespace + "/" + p.Name
}
func serviceName(s *v1alpha1.Service) string {
	return "Service " + s.Namespace + "/" + s.Name
}

// sortProblems brings Problems into their one order and drops repetitions.
func sortProblems(ps []v1alpha1.Problem) []v1alpha1.Problem {
	slices.SortFunc(ps, func(a, b v1alpha1.Problem) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Reason, b.Reason))
	})
	return slices.Compact(ps)
}

// objectProblems are those that need no Network: of projects and nodes.
func objectProblems(in *Input) []v1alpha1.Problem {
	var out []v1alpha1.Problem
	for _, name := range sortedNames(in.Projects) {
		if d := in.Projects[name]; d != "" && in.Domains[d] == nil {
			out = append(out, about(codeNoDomain, "Namespace "+name, "metadata.labels["+v1alpha1.DomainLabel+"]",
				"Domain "+d+" does not exist, so nothing in the project is connected", "create the Domain or correct the label"))
		}
	}
	addresses := map[string]string{}
	for _, name := range sortedNames(in.Nodes) {
		a := in.Nodes[name].Spec.Address
		if first, taken := addresses[a]; taken {
			out = append(out, about(codeDuplicateNode, "Node "+name, "spec.address",
				fmt.Sprintf("Node %s has the underlay address %s too", first, a), "give each Node an address of its own"))
			continue
		}
		addresses[a] = name
	}
	for k, p := range in.Policies {
		wide := k.Project == v1alpha1.SystemNamespace && tierOf(p) != policy.Project
		if in.Projects[k.Project] == "" && !wide {
			out = append(out, noDomain(policyName(p), k.Project, "the Policy holds for nobody"))
		}
	}
	return out
}

// noDomain is the Problem of an object in a project without a Domain.
func noDomain(object, project, so string) v1alpha1.Problem {
	return warn(about(codeProjectNoDomain, object, "metadata.namespace", "project "+project+" belongs to no Domain, so "+so,
		fmt.Sprintf("label the namespace with %s=<domain>", v1alpha1.DomainLabel)))
}
