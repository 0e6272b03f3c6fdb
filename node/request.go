package node

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"moire.dev/moire/datapath"
	"moire.dev/moire/node/local"
)

var (
	ifName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_.-]{0,14}$`)
	// labelText is what label selectors can ask for.
	labelText = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)
	trailing  = regexp.MustCompile(`[0-9]+$`)
)

// invalid is a request that can never be done as it is.
type invalid struct{ error }

// Unwrap gives the reason.
func (i invalid) Unwrap() error { return i.error }

// check says what is wrong with a request, in words for who sent it, and
// brings it into the one form that a thing has here.
func check(a *local.Attach) error {
	if !name.MatchString(a.Project) {
		return fmt.Errorf("project %q is not a name; use small letters, digits and dashes", a.Project)
	}
	if !name.MatchString(a.Workload) {
		return fmt.Errorf("workload %q is not a name; use small letters, digits and dashes", a.Workload)
	}
	if a.Account == "" {
		a.Account = "default"
	}
	if !name.MatchString(a.Account) {
		return fmt.Errorf("account %q is not a name; use small letters, digits and dashes", a.Account)
	}
	if err := checkNetworks(a); err != nil {
		return err
	}
	if err := checkInterfaces(a); err != nil {
		return err
	}
	return checkLabels(a.Labels)
}

func checkNetworks(a *local.Attach) error {
	if len(a.Networks) == 0 || len(a.Networks) > 16 {
		return fmt.Errorf("a Workload is attached to 1 to 16 Networks, not %d", len(a.Networks))
	}
	own := func(n string) string { return strings.TrimPrefix(n, a.Project+"/") }
	for i, n := range a.Networks {
		project, short, other := strings.Cut(n, "/")
		if !other {
			project, short = a.Project, n
		}
		if !name.MatchString(project) || !name.MatchString(short) {
			return fmt.Errorf("network %q is not a name; use small letters, digits and dashes, and PROJECT/NETWORK for one of another project", n)
		}
		a.Networks[i] = own(n)
		if slices.Contains(a.Networks[:i], a.Networks[i]) {
			return fmt.Errorf("network %q is named twice; a Workload has at most one interface in a Network", n)
		}
	}
	if a.DefaultRoute = own(a.DefaultRoute); a.DefaultRoute != "" && a.DefaultRoute != local.NoRoute && !slices.Contains(a.Networks, a.DefaultRoute) {
		return fmt.Errorf("the default route is to go by network %q, which is not among those to attach to; name one of %s, or %s",
			a.DefaultRoute, strings.Join(a.Networks, ", "), local.NoRoute)
	}
	return nil
}

func checkInterfaces(a *local.Attach) error {
	if a.Tap && (a.Netns != "" || a.IfName != "" || len(a.IfNames) > 0) {
		return fmt.Errorf("a tap is a device of the node, whose name the node chooses; leave namespace and interface name out")
	}
	if !a.Tap && (a.Owner != 0 || a.Group != 0) {
		return fmt.Errorf("only a tap has an owner")
	}
	if len(a.IfNames) > len(a.Networks) {
		return fmt.Errorf("%d interface names for %d Networks; give at most one for each", len(a.IfNames), len(a.Networks))
	}
	if a.IfName != "" && len(a.IfNames) > 0 {
		return fmt.Errorf("interface names are given one by one (%s) and counted on from %s; choose one way", strings.Join(a.IfNames, ", "), a.IfName)
	}
	given := slices.Clone(a.IfNames)
	for i := range a.Networks {
		if a.IfName != "" {
			given = append(given, nthIfName(a.IfName, i))
		}
	}
	for i, n := range given {
		switch {
		case n == "" && a.IfName == "":
		case !ifName.MatchString(n) || n == "lo":
			return fmt.Errorf("%q cannot be the name of an interface; use at most 15 letters, digits, dashes", n)
		case slices.Contains(given[:i], n):
			return fmt.Errorf("two interfaces cannot both be %s", n)
		}
	}
	if a.IfName != "" {
		a.IfName, a.IfNames = "", given
	}
	return nil
}

func checkLabels(labels map[string]string) error {
	if len(labels) > 64 {
		return fmt.Errorf("a Workload has at most 64 labels, not %d", len(labels))
	}
	for key, value := range labels {
		prefix, short, found := strings.Cut(key, "/")
		if !found {
			prefix, short = "", key
		}
		if found && !name.MatchString(prefix) || !labelText.MatchString(short) || value != "" && !labelText.MatchString(value) {
			return fmt.Errorf("label %q cannot be; use at most 63 letters, digits, '-', '_' and '.' for key and value, beginning and ending with a letter or digit", key+"="+value)
		}
	}
	return nil
}

// nthIfName counts on from the number at the end: eth0, eth1, ...
func nthIfName(first string, n int) string {
	if n == 0 {
		return first
	}
	digits := trailing.FindString(first)
	from, err := strconv.Atoi(digits)
	if err != nil {
		digits, from = "", 0
	}
	return first[:len(first)-len(digits)] + strconv.Itoa(from+n)
}

// namesFor gives each of the Networks an interface name: the one that was
// asked for, or the next that is free beside the others.
func namesFor(a *local.Attach, others []*attachment) ([]string, error) {
	taken := map[string]string{} // name -> Network
	names := make([]string, len(a.Networks))
	for _, o := range others {
		taken[o.IfName] = o.Key.Network
		if i := slices.Index(a.Networks, o.Key.Network); i >= 0 && o.Key.Project == a.Project && o.Key.Workload == a.Workload {
			names[i] = o.IfName
		}
	}
	for i, n := range a.IfNames {
		if by, ok := taken[n]; ok && n != "" && by != a.Networks[i] {
			return nil, fmt.Errorf("%s is the interface in %s already; choose another name (--ifname)", n, by)
		}
		if n != "" {
			names[i] = n
		}
	}
	next := 0
	for i, n := range names {
		for n == "" {
			n = nthIfName(local.DefaultIfName, next)
			if _, ok := taken[n]; ok || slices.Contains(names, n) {
				n = ""
			}
			next++
		}
		names[i] = n
	}
	return names, nil
}

// routesFor says for each of the Networks what its gateway is to the Workload.
func routesFor(a *local.Attach, others []*attachment) ([]datapath.DefaultRoute, error) {
	first := a.DefaultRoute
	for _, o := range others {
		if o.Default != datapath.FirstRoute || o.Key.Network == first && o.Key.Project == a.Project {
			continue
		}
		if first != "" && first != local.NoRoute {
			return nil, fmt.Errorf("the default route goes by %s already; detach that first, or leave the default route where it is", inFull(o.Key))
		}
		if first == "" {
			first = o.Key.Network
		}
	}
	if first == "" {
		first = a.Networks[0]
	}
	out := make([]datapath.DefaultRoute, len(a.Networks))
	for i, n := range a.Networks {
		switch {
		case first == local.NoRoute:
			out[i] = datapath.NoRoute
		case n != first:
			out[i] = datapath.SecondRoute
		}
	}
	return out, nil
}
