package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/remote"
	"moire.dev/moire/cli/show"
	"moire.dev/moire/compile"
	"moire.dev/moire/explain"
	"moire.dev/moire/flow/record"
)

// explainFlags are the flags of `moire explain`.
type explainFlags struct {
	from, to  string
	port      int
	protocol  string
	network   string
	name      string
	ipv6      bool
	files     []string
	recursive bool
	output    string
	exitCode  bool
	// of a request
	request  string
	headers  []string
	claims   []string
	external string
	// record is the id of something that happened, records a file with it.
	record, records string
}

func (a *app) explainCommand() *cobra.Command {
	var f explainFlags
	c := &cobra.Command{
		Use:   "explain --from P/W --to P/W|ADDRESS --port N | --record ID",
		Short: "Say what happens to a packet or request, and which rule decides",
		Long: `Say what happens to a packet: allow or deny, every step, and the rule or the
default that decides, with the object that it comes from. The same code decides
in the kernel's tables. Where a hash chooses, among the backends of a Service or
the instances of a function, all ways are told, and what depends on the choice.
With --request it is about one HTTP request: also which route takes it, by the
code of the proxy, whether eBPF or a proxy decides, and why a proxy is needed.
With --record it is about something that happened: what the record with that id
says, and what would happen now.
With -f the intent of files is asked instead of a server.
Exit code 0 whatever the answer; with --exit-code 1 for deny.

For the fields of a kind see: kubectl explain network.spec`,
		Example: `  moire explain --from shop/web --to shop/db --port 5432
  moire explain --from shop/web --to 10.0.0.12 --port 53 --proto udp -o json
  moire explain --from shop/web --to "service shop/api" --port 80
  moire explain --from shop/web --to api.example.com --port 443
  moire explain --from shop/web --to shop/cart --port 80 --request "GET /cart/7" -H "x-beta: 1"
  moire explain --from shop/web --to shop/cart --port 80 --request "POST /pay" --claim iss=https://id.example.com --claim groups=staff
  moire explain --record 5f3c2a7e91d04b66
  moire explain -f intent/ --from shop/web --to shop/db --port 5432`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.explain(c.Context(), f) },
	}
	fl := c.Flags()
	fl.StringVar(&f.from, "from", "", "source: PROJECT/WORKLOAD, WORKLOAD of the project, or an address")
	fl.StringVar(&f.to, "to", "", "destination, written like --from; also a Service or FloatingIP, or a DNS name")
	fl.StringVar(&f.name, "name", "", "DNS name for which the source was told the address --to")
	fl.IntVar(&f.port, "port", 0, "destination port; icmp has none")
	fl.StringVar(&f.protocol, "proto", "tcp", "tcp, udp, sctp or icmp")
	fl.StringVar(&f.network, "network", "", "network, where both ends share several or an address is in several")
	fl.BoolVarP(&f.ipv6, "ipv6", "6", false, "ask for the IPv6 addresses of workloads that have both families")
	fl.StringArrayVarP(&f.files, "filename", "f", nil, "ask the intent in this file or directory, without a server")
	fl.BoolVarP(&f.recursive, "recursive", "R", false, "also the folders below the directories")
	fl.StringVarP(&f.output, "output", "o", "", "json or yaml")
	fl.StringVar(&f.request, "request", "", `ask about one HTTP request, such as "GET /cart?id=7"; --port is 80 by default then`)
	fl.StringArrayVarP(&f.headers, "header", "H", nil, `header of the request, such as "x-role: admin"; host is one, too`)
	fl.StringArrayVar(&f.claims, "claim", nil, "claim of a valid token that the request is taken to bear, such as iss=https://id.example.com")
	fl.StringVar(&f.external, "external", "", "yes or no: whether the authorizers that rules ask agree (default: not known)")
	fl.StringVar(&f.record, "record", "", "id of a session or request that happened, as `moire flows -o json` shows it")
	fl.StringVar(&f.records, "records", "", "with -f: file with the records, as `moire flows -o json` writes it")
	fl.BoolVar(&f.exitCode, "exit-code", false, "exit code 1 when the answer is deny")
	return c
}

// question checks the flags.
func (f *explainFlags) question(project string) (explain.Query, error) {
	q := explain.Query{From: f.from, To: f.to, Project: project, Network: f.network, Name: f.name, Protocol: strings.ToLower(f.protocol), IPv6: f.ipv6}
	const example = "write it like: moire explain --from shop/web --to shop/db --port 5432"
	if f.record != "" {
		return q, f.onlyRecord()
	}
	if err := f.ofRequest(&q); err != nil {
		return q, err
	}
	switch {
	case f.from == "":
		return q, fault.Usagef(example, "--from is missing")
	case f.to == "":
		return q, fault.Usagef(example, "--to is missing")
	case !slices.Contains([]string{"tcp", "udp", "sctp", "icmp"}, q.Protocol):
		return q, fault.Usagef("use tcp, udp, sctp or icmp", "--proto %q is unknown", f.protocol)
	case q.Protocol == "icmp" && f.port != 0:
		return q, fault.Usagef("leave --port out", "icmp has no ports")
	case q.Protocol != "icmp" && (f.port < 1 || f.port > 65535):
		return q, fault.Usagef("give a port from 1 to 65535 with --port", "--port %d is not a port of %s", f.port, q.Protocol)
	}
	for _, end := range []struct{ flag, value string }{{"--from", f.from}, {"--to", f.to}} {
		if err := checkEnd(end.flag, end.value, project); err != nil {
			return q, err
		}
	}
	q.Port = uint16(f.port)
	return q, nil
}

func checkEnd(flag, value, project string) error {
	if _, err := netip.ParseAddr(value); err == nil {
		return nil
	}
	value = bare(value)
	owner, workload, found := strings.Cut(value, "/")
	if !found {
		owner, workload = project, value
	}
	if !found && flag == "--to" && strings.Contains(value, ".") && checkNames([]string{strings.TrimSuffix(value, ".")}) == nil {
		return nil // a DNS name
	}
	if owner == "" {
		return fault.Usagef("write "+flag+" PROJECT/"+value+", or give the project with -p", "%s %s: of which project?", flag, value)
	}
	if checkNames([]string{owner, workload}) != nil {
		return fault.Usagef("write PROJECT/WORKLOAD or an address", "%s %q is neither a workload nor an address", flag, value)
	}
	return nil
}

// bare is an end without the word for its kind.
func bare(end string) string {
	for _, kind := range []string{"workload ", "service ", "svc ", "floatingip ", "fip "} {
		if rest, ok := strings.CutPrefix(end, kind); ok {
			return strings.TrimSpace(rest)
		}
	}
	return end
}

func (a *app) explain(ctx context.Context, f explainFlags) error {
	format, err := show.ParseFormat(f.output, show.JSON, show.YAML)
	if err != nil {
		return err
	}
	var answer explain.Answer
	if len(f.files) > 0 {
		answer, err = a.explainFiles(f)
	} else {
		answer, err = a.explainServer(ctx, f)
	}
	if err != nil {
		return err
	}
	if answer.Error != "" {
		fix := "`moire get workloads -A` shows what there is"
		if len(f.files) > 0 {
			fix = "declare it in the files, or ask the server without -f"
		}
		return fault.Usagef(fix, "cannot tell: %s", answer.Error)
	}
	if format.Kind != show.AsTable {
		err = writeValue(a.out, format, answer)
	} else {
		var b bytes.Buffer
		answer.Text(&b)
		_, err = a.out.Write(b.Bytes())
	}
	if err == nil && f.exitCode && !answer.Allow {
		return fault.Exit(fault.Failed)
	}
	return err
}

// explainServer asks the control plane, in the project of the source or, where
// that is an address, of the destination.
func (a *app) explainServer(ctx context.Context, f explainFlags) (explain.Answer, error) {
	var answer explain.Answer
	// What is wrong with the question is said before a server is looked for.
	if _, err := f.question("default"); err != nil {
		return answer, err
	}
	client, err := a.client()
	if err != nil {
		return answer, err
	}
	query, err := f.question(client.Namespace)
	if err != nil {
		return answer, err
	}
	project := client.Namespace
	for _, end := range []string{f.from, f.to} {
		if owner, _, found := strings.Cut(bare(end), "/"); found {
			project = owner
			break
		}
		if _, err := netip.ParseAddr(end); err != nil {
			break // a Workload of the project
		}
	}
	v := url.Values{"from": {query.From}, "to": {query.To}, "proto": {query.Protocol}}
	if f.record != "" {
		v = url.Values{"record": {f.record}}
	}
	if f.request != "" {
		v["request"], v["header"], v["claim"] = []string{f.request}, f.headers, f.claims
		if f.external != "" {
			v.Set("external", f.external)
		}
	}
	if query.Port != 0 {
		v.Set("port", strconv.Itoa(int(query.Port)))
	}
	if query.Network != "" {
		v.Set("network", query.Network)
	}
	if query.Name != "" {
		v.Set("name", query.Name)
	}
	if query.IPv6 {
		v.Set("ipv6", "true")
	}
	got, err := client.Do(ctx, remote.Request{Path: ownAPI + "/namespaces/" + project + "/explain", Query: v})
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(got.Body, &answer); err != nil {
		return answer, fmt.Errorf("the server's answer cannot be read: %w", err)
	}
	return answer, nil
}

// explainFiles asks the intent of files.
func (a *app) explainFiles(f explainFlags) (explain.Answer, error) {
	project, err := a.workspace()
	if err != nil {
		return explain.Answer{}, err
	}
	query, err := f.question(project)
	if err != nil {
		return explain.Answer{}, err
	}
	if project == "" {
		project = "default"
	}
	objects, err := a.readIntent(f.files, f.recursive, project)
	if err != nil {
		return explain.Answer{}, err
	}
	var happened *record.Record
	if f.record != "" {
		if happened, err = f.recorded(); err != nil {
			return explain.Answer{}, err
		}
	}
	query.Origin = objects.Origin
	snaps, problems := compile.Compile(compile.Offline(objects.All()...))
	for i := range problems {
		problems[i] = objects.Place(problems[i])
		// The question is answered all the same, from what can be connected.
		problems[i].Warning = true
	}
	a.tellProblems(problems)
	if happened != nil {
		return explain.Happened(happened, nil, query.Origin, snaps), nil
	}
	return explain.Packet(query, snaps), nil
}
