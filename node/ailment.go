package node

import (
	"fmt"
	"strings"
	"time"

	"moire.dev/moire/node/proxies"
)

// What others hear of proxies that are not well.
const (
	ailGrace   = 3 * time.Second // something is wrong for as long before it is told
	ailsTold   = 3               // one by one
	ailsLength = 2000            // bytes of text
)

// ailment says what is wrong with proxies; "": nothing.
func ailment(all []proxies.Status) string {
	var wrong []string
	add := func(s *proxies.Status, what string) { wrong = append(wrong, "proxy "+s.Name+": "+what) }
	for i := range all {
		s := &all[i]
		switch {
		case s.Error != "" && !s.Up && s.Last != "":
			add(s, s.Error+"; the last one ended: "+s.Last)
		case s.Error != "":
			add(s, s.Error)
		}
		for _, part := range s.LeftOut {
			add(s, "it leaves out "+part)
		}
	}
	if more := len(wrong) - ailsTold; more > 0 {
		wrong = append(wrong[:ailsTold], fmt.Sprintf("and %d more; 'moire proxy' lists them", more))
	}
	text := strings.Join(wrong, "; ")
	return strings.ToValidUTF8(text[:min(len(text), ailsLength)], "?")
}
