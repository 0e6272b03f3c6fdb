package local

import (
	"fmt"
	"strings"
)

// ResolvConf is the resolv.conf of a Workload with these interfaces: the name
// service of the first that has one. "" when none has.
func ResolvConf(interfaces []Interface) string {
	for _, i := range interfaces {
		if len(i.Nameservers) == 0 {
			continue
		}
		var b strings.Builder
		for _, s := range i.Nameservers {
			fmt.Fprintf(&b, "nameserver %s\n", s)
		}
		if len(i.Search) > 0 {
			fmt.Fprintf(&b, "search %s\n", strings.Join(i.Search, " "))
		}
		return b.String()
	}
	return ""
}
