package compile

import (
	"fmt"
	"testing"
)

// TestServers: a name server is an address that means the same on every node.
func TestServers(t *testing.T) {
	got := servers([]string{"192.0.2.53", "[2001:db8::1]:5353", "10.0.0.5:54", "127.0.0.1", "127.0.0.53:5353", "::1", "[::ffff:127.0.0.1]:53", "0.0.0.0", "169.254.169.254", "fe80::1", "ff02::fb", "name"})
	if fmt.Sprint(got) != "[192.0.2.53:53 [2001:db8::1]:5353 10.0.0.5:54]" {
		t.Errorf("servers %v", got)
	}
}
