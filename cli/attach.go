package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/show"
	"moire.dev/moire/node/local"
)

// localFlags say which agent of this machine is meant.
type localFlags struct {
	node   string
	runDir string
}

func (f *localFlags) bind(c *cobra.Command) {
	c.Flags().StringVar(&f.node, "node", "", "name of the node, when several run on this machine")
	c.Flags().StringVar(&f.runDir, "run-dir", defaultRunDir, "directory of the agents' sockets")
}

// socket finds the socket of the agent; when exactly one is there, it is that.
func (f *localFlags) socket() (string, error) {
	if f.node != "" {
		if checkNames([]string{f.node}) != nil {
			return "", fault.Usagef("use the name as `moire get nodes` shows it", "--node %q is not the name of a node", f.node)
		}
		path := local.Socket(f.runDir, f.node)
		if !exists(path) {
			return "", fault.New(fault.Unreachable, "start it with `moire up` or `moire-node run`; "+f.known(), "no agent of node %q runs on this machine: %s is not there", f.node, path)
		}
		return path, nil
	}
	sockets, err := local.Sockets(f.runDir)
	if err != nil {
		return "", fmt.Errorf("look for agents in %s: %w", f.runDir, err)
	}
	switch len(sockets) {
	case 0:
		return "", fault.New(fault.Unreachable, "start one with `moire up` or `moire-node run`, as root", "no agent runs on this machine: there is no socket in %s", f.runDir)
	case 1:
		return sockets[0], nil
	}
	return "", fault.Usagef("say which with --node; "+f.known(), "%d agents run on this machine", len(sockets))
}

// agents are the sockets of all agents that may be meant.
func (f *localFlags) agents() ([]string, error) {
	sockets, err := local.Sockets(f.runDir)
	if f.node != "" || err != nil || len(sockets) == 0 {
		one, err := f.socket()
		return []string{one}, err
	}
	return sockets, nil
}

// known lists the nodes of this machine.
func (f *localFlags) known() string {
	sockets, err := local.Sockets(f.runDir)
	if err != nil || len(sockets) == 0 {
		return "none runs here now"
	}
	var names []string
	for _, s := range sockets {
		names = append(names, strings.TrimSuffix(filepath.Base(s), ".sock"))
	}
	return "here run: " + strings.Join(names, ", ")
}

// memberFlags say what is attached to what.
type memberFlags struct {
	localFlags
	networks []string
	name     string
	labels   []string
	account  string
	ifNames  []string
	route    string
}

func (f *memberFlags) bind(c *cobra.Command) {
	f.localFlags.bind(c)
	fl := c.Flags()
	fl.StringArrayVar(&f.networks, "network", nil, "network to attach to, PROJECT/NAME for one of another project; give it again for a second interface")
	fl.StringArrayVarP(&f.labels, "label", "l", nil, "label of the workload, such as app=web; may be given several times")
	fl.StringVar(&f.account, "account", "", "service account part of the identity (default \"default\")")
	fl.StringArrayVar(&f.ifNames, "ifname", nil, "name of the first interface, from whose number the others count on; or one for each --network (default: the next free of eth0, eth1, ...)")
	fl.StringVar(&f.route, "default-route", "", "network whose gateway gets what is in no network, or "+local.NoRoute+" (default: the first)")
}

// request is what the flags ask for; netns and the like are left open.
func (f *memberFlags) request(project string) (local.Attach, error) {
	labels, err := parseLabels(f.labels)
	if err != nil {
		return local.Attach{}, err
	}
	if project == "" {
		return local.Attach{}, fault.Usagef("give it with --project", "the project is missing")
	}
	if len(f.networks) == 0 {
		return local.Attach{}, fault.Usagef("give at least one with --network; `moire get networks -p "+project+"` shows them", "the network is missing")
	}
	request := local.Attach{Project: project, Workload: f.name, Networks: f.networks, DefaultRoute: f.route, Account: f.account, Labels: labels}
	if len(f.ifNames) == 1 {
		request.IfName = f.ifNames[0]
	} else {
		request.IfNames = f.ifNames
	}
	return request, nil
}

func parseLabels(list []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, entry := range list {
		for _, pair := range strings.Split(entry, ",") {
			key, value, found := strings.Cut(pair, "=")
			if !found || key == "" {
				return nil, fault.Usagef("write it like --label app=web", "--label %q is not key=value", entry)
			}
			if old, twice := labels[key]; twice && old != value {
				return nil, fault.Usagef("keep one of them", "--label %s is given twice, as %q and %q", key, old, value)
			}
			labels[key] = value
		}
	}
	return labels, nil
}

// attachFlags say where the interfaces go.
type attachFlags struct {
	memberFlags
	netns  string
	pid    int
	tap    bool
	owner  string
	dhcp   bool
	output string
}

func (a *app) attachCommand() *cobra.Command {
	var f attachFlags
	c := &cobra.Command{
		Use:   "attach --netns NAME|PATH --network N --name W | --pid PID --network N --name W | --tap --network N --name W",
		Short: "Give a network namespace or a virtual machine an interface in a network",
		Long: `Give a network namespace that somebody else made an interface in one or more
networks. The interface stays until 'moire detach', also over restarts of the
agent; with --pid it ends with that process.

With --tap it is a tap device of the node, for a virtual machine, which gets its
addresses by DHCP and router advertisements.`,
		Example: `  sudo moire attach --netns blue -p shop --network front --name web --label app=web
  sudo moire attach --pid 4711 -p shop --network front --name web
  sudo moire attach --tap --tap-owner qemu -p shop --network front --name vm1
  sudo moire attach --netns fw -p shop --network front --ifname in --network back --ifname out --name fw`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.attach(c.Context(), f) },
	}
	f.bind(c)
	fl := c.Flags()
	fl.StringVar(&f.name, "name", "", "name of the workload")
	fl.StringVar(&f.netns, "netns", "", "name below /run/netns, or path of the network namespace")
	fl.IntVar(&f.pid, "pid", 0, "process whose network namespace it is")
	fl.BoolVar(&f.tap, "tap", false, "make a persistent tap device on the node, for a virtual machine")
	fl.StringVar(&f.owner, "tap-owner", "", "user who may open the tap, by name or number (default: only root)")
	fl.BoolVar(&f.dhcp, "dhcp", false, "leave addresses and routes to the workload, which asks for them by DHCP and router solicitations")
	fl.StringVarP(&f.output, "output", "o", "", "json or yaml")
	return c
}

func (a *app) attach(ctx context.Context, f attachFlags) error {
	format, err := show.ParseFormat(f.output, show.JSON, show.YAML)
	if err != nil {
		return err
	}
	project, err := a.workspace()
	if err != nil {
		return err
	}
	request, err := f.attach(project)
	if err != nil {
		return err
	}
	socket, err := f.socket()
	if err != nil {
		return err
	}
	got, err := local.NewClient(socket).Attach(ctx, request)
	if err != nil {
		return fromAgent(err)
	}
	for _, w := range got.Warnings {
		a.say("warning: %s", w)
	}
	if format.Kind != show.AsTable {
		return writeValue(a.out, format, got)
	}
	for _, i := range got.Interfaces {
		more := ""
		if f.tap {
			more = fmt.Sprintf(" (tap on this node; MAC %s, MTU %d)", i.MAC, i.MTU)
		}
		if err := a.print("%s/%s attached: %s is %s in %s%s", project, request.Workload, i.IfName, joinAddresses(i.Addresses), i.Network, more); err != nil {
			return err
		}
	}
	if conf := local.ResolvConf(got.Interfaces); conf != "" && !f.tap {
		return a.print("names are answered there with this resolv.conf:\n%s", strings.TrimSuffix(conf, "\n"))
	}
	return nil
}

// attach is what the flags ask for.
func (f *attachFlags) attach(project string) (local.Attach, error) {
	request, err := f.request(project)
	if err != nil {
		return request, err
	}
	if request.Workload == "" {
		return request, fault.Usagef("give it with --name", "the name of the workload is missing")
	}
	request.PID, request.Persist, request.DHCP = f.pid, f.pid == 0, f.dhcp
	if f.owner != "" && !f.tap {
		return request, fault.Usagef("give --tap too, or leave it out", "--tap-owner is of a tap")
	}
	if !f.tap {
		request.Netns, err = namespacePath(f.netns, f.pid)
		return request, err
	}
	if f.netns != "" || len(f.ifNames) > 0 {
		return request, fault.Usagef("leave --netns and --ifname out, or --tap", "a tap is a device of the node, whose name the node chooses")
	}
	request.Tap = true
	if f.owner != "" {
		if request.Owner, request.Group, err = ownerOf(f.owner); err != nil {
			return request, err
		}
	}
	return request, nil
}

// ownerOf finds a user and the group that it is in.
func ownerOf(name string) (owner, group uint32, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.LookupId(name)
	}
	if err != nil {
		return 0, 0, fault.Usagef("name a user of this machine (getent passwd)", "--tap-owner %s: %v", name, err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return uint32(uid), uint32(gid), errors.Join(err1, err2)
}

// namespacePath is the path of the namespace as the agent sees it.
func namespacePath(netns string, pid int) (string, error) {
	switch {
	case netns != "" && pid != 0:
		return "", fault.Usagef("give one of them", "--netns and --pid name two namespaces")
	case pid < 0 || netns == "" && pid == 0:
		return "", fault.Usagef("give --netns NAME, --netns PATH or --pid PID; `ip netns list` shows the names", "the network namespace is missing")
	case pid != 0:
		dir := "/proc/" + strconv.Itoa(pid)
		if !exists(dir) {
			return "", fault.Usagef("give the id of a process that runs", "--pid %d: there is no such process", pid)
		}
		return dir + "/ns/net", nil
	case strings.Contains(netns, "/"):
		path, err := filepath.Abs(netns)
		if err == nil && !exists(path) {
			return "", fault.Usagef("give an existing path such as /run/netns/NAME or /proc/PID/ns/net", "--netns %s is not there", netns)
		}
		return path, err
	}
	path := filepath.Join("/run/netns", netns)
	if !exists(path) {
		return "", fault.Usagef("make it with: ip netns add "+netns, "there is no network namespace %q: %s is not there", netns, path)
	}
	return path, nil
}

func (a *app) detachCommand() *cobra.Command {
	var f localFlags
	var networks []string
	c := &cobra.Command{
		Use:     "detach PROJECT/WORKLOAD",
		Short:   "Take interfaces of a workload away",
		Example: "  sudo moire detach shop/web\n  sudo moire detach web -p shop --network front",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.detach(c.Context(), f, networks, args[0])
		},
	}
	f.bind(c)
	c.Flags().StringArrayVar(&networks, "network", nil, "only the interface in this network (default: all)")
	return c
}

// workload reads PROJECT/WORKLOAD, or the name of one in the project that the
// flags give.
func (a *app) workload(name, example string) (project, workload string, err error) {
	given, err := a.workspace()
	if err != nil {
		return "", "", err
	}
	project, workload, found := strings.Cut(name, "/")
	if !found {
		project, workload = given, name
	}
	if project == "" || workload == "" || strings.Contains(workload, "/") {
		return "", "", fault.Usagef("write it like: "+example, "%q is not PROJECT/WORKLOAD", name)
	}
	if given != "" && given != project {
		return "", "", fault.Usagef("give one of them", "%s and --project %s name two projects", name, given)
	}
	return project, workload, nil
}

func (a *app) detach(ctx context.Context, f localFlags, networks []string, name string) error {
	project, workload, err := a.workload(name, "moire detach shop/web")
	if err != nil {
		return err
	}
	socket, err := f.socket()
	if err != nil {
		return err
	}
	err = local.NewClient(socket).Detach(ctx, local.Detach{Project: project, Workload: workload, Networks: networks})
	if err != nil {
		return fromAgent(err)
	}
	return a.print("%s/%s detached", project, workload)
}

// fromAgent gives an error of the agent its exit code.
func fromAgent(err error) error {
	code := fault.Failed
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, local.ErrAway):
		code = fault.Unreachable
	case errors.Is(err, local.ErrInvalid):
		code = fault.Usage
	case errors.Is(err, os.ErrPermission):
		code = fault.Forbidden
	case errors.Is(err, context.DeadlineExceeded):
		code = fault.Timeout
	}
	return &fault.Fault{Code: code, Text: err.Error(), Cause: err}
}

// writeValue writes any value in a format of whole objects.
func writeValue(w io.Writer, format show.Format, value any) error {
	if format.Kind == show.JSON {
		// As it is, so that fields stay in the order of their struct.
		return format.Write(w, value)
	}
	body, err := json.Marshal(value)
	if err != nil {
		return err
	}
	decoded, err := show.Decode(body)
	if err != nil {
		return err
	}
	return format.Write(w, decoded)
}

func joinAddresses(list []netip.Addr) string {
	if len(list) == 0 {
		return "without an address"
	}
	words := make([]string, len(list))
	for i, addr := range list {
		words[i] = addr.String()
	}
	return strings.Join(words, ", ")
}
