// Package scenario reads scenario files and runs them against any Runner.
//
// In: *.txtar files. Out: a Scenario, and what a Runner's Checks said. It never
// touches a kernel or a server: stage 1 (Pure, here) asks compile and explain
// in milliseconds; stage 2 (the eBPF programs under BPF_PROG_RUN) and stage 3
// (real traffic) are other Runners of the same files. A disagreement between
// stages is a bug.
//
// A file is a txtar archive: a script and, below it, intent files.
//
//	# The first comment block says what is shown.
//	nodes n1 n2
//	apply base.yaml web.yaml
//	shop/web -> shop/db tcp/5432 allow rule=policy/shop/db/ingress/from-web
//	shop/web -> shop/db icmp deny
//	label shop/web app=cron tier-
//	shop/web -> shop/db tcp/5432 deny rule=isolated/shop/ingress
//	-- base.yaml --
//	...
//
// Steps change the intent:
//
//	nodes NAME...                  agents that there are; the first line if any
//	not STAGE... because REASON    stages (2 or 3) that cannot run it
//	apply FILE...                  create or replace the objects of the files
//	delete KIND [PROJECT/]NAME     remove an object
//	move PROJECT/WORKLOAD NODE     bind a Workload to another node
//	label PROJECT/WORKLOAD K=V K-  set and remove labels
//
// or the world:
//
//	health PROJECT/WORKLOAD down|up  it fails its health checks, or passes them again
//	away NODE, back NODE             its agent is not heard of, or is again
//	answer NAME ADDRESS...           what a DNS name outside has for addresses
//
// Checks follow the step after which they hold:
//
//	FROM -> TO PROTOCOL[/PORT] allow|deny|depends|proxy|unattached [option...]
//	FROM -> TO tcp/PORT METHOD PATH allow|deny|depends [option...]
//
// The second form asks about one HTTP request. proxy: rules about requests decide,
// and no request is asked about.
// FROM and TO are project/workload or an address. TO may also be a Service or
// FloatingIP as project/name, an address outside, or a name with full stops: of
// the platform or a DNS name outside. FROM may be an address outside when TO is a
// FloatingIP of an external pool. depends: some of the ways that a hash may
// choose are allowed, others are not. unattached: one of the two may not be
// connected at all. Options:
//
//	rule=ID       decided: on deny the rule or default that denied, on allow
//	              that of either end
//	egress=ID     what the source's end said, ingress=ID what the other said
//	shadow=allow|deny[:ID]  what Policies in mode audit would make of it;
//	              without the option there must be no difference
//	ipv6          use the IPv6 addresses
//	network=P/N   when both ends share several Networks
//	service=P/N   the Service or FloatingIP that answers
//	backend=B,B   who is behind it, all that may be chosen: project/workload,
//	              or address:port outside
//	via=F,F       functions that it goes through in this order: project/workload,
//	              a|b where a hash chooses among instances
//	as=ADDRESS    the source as the destination's side sees it
//	at=ADDRESS    the destination as its side sees it; FloatingIPs have a port
//
// and of a request:
//
//	host=HOST            that is asked for
//	header=NAME:VALUE    one header; may be there several times
//	claim=NAME:VALUE     what a valid token says; may be there several times
//	external=yes|no      whether authorizers agree
//	route=NAME           the route that takes it
//	status=N             what a proxy answers by itself
//
//	problem CODE KIND [PROJECT/]NAME
//
// expects a Problem of compile; one that is not expected is a failure, unless
// it is a warning. Rules closed/... are told by records as drop reasons.
package scenario
