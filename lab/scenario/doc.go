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
//	apply FILE...                  create or replace the objects of the files
//	delete KIND [PROJECT/]NAME     remove an object
//	move PROJECT/WORKLOAD NODE     bind a Workload to another node
//	label PROJECT/WORKLOAD K=V K-  set and remove labels
//
// Checks follow the step after which they hold:
//
//	FROM -> TO PROTOCOL[/PORT] allow|deny|unattached [option...]
//
// FROM and TO are project/workload or an address. unattached: one of the two
// may not be connected at all. Options:
//
//	rule=ID       decided: on deny the rule or default that denied, on allow
//	              that of either end
//	egress=ID     what the source's end said, ingress=ID what the other said
//	shadow=allow|deny[:ID]  what Policies in mode audit would make of it;
//	              without the option there must be no difference
//	ipv6          use the IPv6 addresses
//	network=P/N   when both ends share several Networks
//
//	problem CODE KIND [PROJECT/]NAME
//
// expects a Problem of compile; one that is not expected is a failure, unless
// it is a warning. Rules closed/... are told by records as drop reasons.
package scenario
