package compile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"moire.dev/moire/snapshot/l7"
)

// attachment is a route at a port.
type attachment struct {
	route    *route
	policies *policies
	// verdicts of its parents that mean the port.
	verdicts []*parentVerdict
	// rules as the port has them; none: all are broken.
	rules []l7.Rule
}

func (a *attachment) refuse(reason, text, fix string) {
	for _, v := range a.verdicts {
		v.refuse(reason, text, fix)
	}
}

func (a *attachment) take() {
	for _, v := range a.verdicts {
		v.taken = true
	}
}

// breaks notes what is wrong with a rule.
func (a *attachment) breaks(rule int, flaws []flaw) {
	for _, v := range a.verdicts {
		v.broken[rule] = true
		for _, f := range flaws {
			v.note(f)
		}
	}
}

// nowhere is the cluster of a destination that is not valid: there is none of
// that name, so that requests to it get an error.
const nowhere = "none"

// rules makes the rules of a route at a port. What cannot be done answers with an
// error in place of what it would do; what cannot even be matched is left out.
func (d *router) rules(a *attachment, own inForce) {
	sound := false
	for i := range a.route.rules {
		of := &a.route.rules[i]
		rule := withClusters(of.Rule, func(name string) string {
			to, _ := d.resolve(a.route, name)
			return to
		})
		if a.route.kind == l7.HTTPRoute || a.route.kind == l7.GRPCRoute {
			near := a.policies.ofRule(of.Name)
			near.apply(&rule)
			own.apply(&rule)
		}
		bare := l7.Rule{Name: rule.Name, Matches: rule.Matches} // answers with an error
		flaws, judged := slices.Clone(of.flaws), rule
		if len(flaws) > 0 {
			judged = bare
		}
		whole := l7.Route{Name: "x", Kind: a.route.kind, Rules: []l7.Rule{judged}}
		if whole.Kind == l7.TLSRoute {
			whole.Hostnames = a.route.hostnames
		}
		unmet := false
		for _, p := range whole.Validate() {
			field := gatewayField(a.route.kind, p.Field, i)
			unmet = unmet || !strings.HasPrefix(field, "spec.rules") || strings.Contains(field, ".matches[")
			flaws = append(flaws, flaw{conditionAccepted, reasonUnsupported, field, p.Reason, p.Fix})
		}
		if len(flaws) == 0 {
			sound = true
			a.rules = append(a.rules, rule)
			continue
		}
		a.breaks(i, flaws)
		if !unmet {
			a.rules = append(a.rules, bare)
		}
	}
	if !sound {
		a.rules = nil
	}
}

// gatewayField is a field of our words as the Gateway API calls it.
func gatewayField(kind l7.Kind, field string, rule int) string {
	field = strings.TrimPrefix(field, "route.")
	if rest, in := strings.CutPrefix(field, "rules[0]"); in {
		field = "rules[" + strconv.Itoa(rule) + "]" + rest
	}
	field = toGateway.Replace(field)
	if kind == l7.GRPCRoute {
		field = strings.NewReplacer(".grpc.kind", ".method.type", ".grpc", ".method").Replace(field)
	}
	return "spec." + field
}

var toGateway = strings.NewReplacer(".requestHeaders", ".requestHeaderModifier", ".responseHeaders", ".responseHeaderModifier", ".redirect", ".requestRedirect",
	".rewrite", ".urlRewrite", ".mirror", ".requestMirror", ".backends[", ".backendRefs[", ".query[", ".queryParams[", ".kind", ".type",
	".path.full", ".path.replaceFullPath", ".path.prefix", ".path.replacePrefixMatch", ".status", ".statusCode", ".timeouts.backend", ".timeouts.backendRequest")

// resolve is the destination that a reference of a route means, or nowhere and
// why.
func (d *router) resolve(r *route, name string) (string, *flaw) {
	b, j := r.refs[name], d.judged[r.RouteKey][name]
	bad := func(reason, text, fix string) (string, *flaw) {
		return nowhere, &flaw{condition: conditionResolved, reason: reason, text: text, fix: fix}
	}
	what := "Service " + b.key.String()
	switch {
	case !b.isService():
		return bad(reasonInvalidKind, fmt.Sprintf("requests cannot be sent to a %s", strings.Trim(b.kind+" of group "+b.group, " ")), "use a Service")
	case !j.permitted:
		return bad(reasonNotPermitted, "project "+b.key.Project+" does not let "+r.Kind+"s of project "+r.Project+" send to "+what, "its owner would write a ReferenceGrant there")
	case j.service == nil:
		return bad(reasonNotFound, what+" does not exist", "create it, or correct the name")
	case b.port == 0:
		return bad(reasonNotFound, "the port of "+what+" is missing", "write port")
	}
	p := tcpPort(j.service, b.port)
	if p == nil {
		return bad(reasonNotFound, fmt.Sprintf("%s has no TCP port %d", what, b.port), "name a port that it has")
	}
	own := j.policies.ofPort(p)
	if own.closed != nil {
		return bad(reasonNotFound, backendPolicyName(own.closed)+" of "+what+" is not valid, so nobody is sent there", "see its status")
	}
	protocol, ok := spoken(r.kind, appOf(p), own.tls())
	if !ok {
		return bad(reasonProtocol, fmt.Sprintf("port %d of %s has appProtocol %s, to which no %s can send", b.port, what, p.AppProtocol, r.Kind), "change the appProtocol of the port, or the kind of the route")
	}
	return d.destination(clusterRef{service: b.key, port: b.port, protocol: protocol, natural: natural(appOf(p))}), nil
}

func (b backendRef) isService() bool { return b.kind == KindService && isService(b.group) }

// String is the name of the cluster in every Network, without the network id.
func (r clusterRef) String() string {
	name := portName(r.service, r.port)
	if r.protocol != r.natural {
		name += "/" + string(r.protocol)
	}
	return name
}

// portName is project/service/port.
func portName(k Key, port int32) string { return k.String() + "/" + strconv.Itoa(int(port)) }
