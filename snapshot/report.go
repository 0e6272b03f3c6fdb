package snapshot

import (
	"net/netip"
	"time"
)

// Report is the world's side: what one node says of itself. It is always
// complete; the last one counts.
type Report struct {
	Node    string
	Address netip.Addr
	Agent   string
	Kernel  string
	// Attachments, sorted by key.
	Attachments []Attachment
	// Blocks as the node holds them, with the exclusions that it honours.
	Blocks []Block
	// RecordsLost counts records dropped since the agent started.
	RecordsLost uint64
	// Health of what the node checks, sorted by key.
	Health []Health
	// Repairs counts rows of the kernel's tables that were not as they should
	// and were repaired, since the agent started; LastRepair says which.
	Repairs    uint64
	LastRepair string
	// Held says why the newest snapshot waits for consent; "": it does not.
	Held string
	// Trusts that are in force here, its proxies included, sorted. A root begins
	// to sign when it is among them everywhere.
	Trusts []TrustMark
	// Proxies says what is wrong with the node's proxies, and has been for a
	// while; "": nothing.
	Proxies string
}

// Attachment is one interface that the node has or wants.
type Attachment struct {
	AttachmentKey
	// Account and Labels (sorted by key) that the attacher claimed. A declared
	// Workload of the same name overrides both.
	Account string
	Labels  []Label
	// Addresses is empty while the attachment waits for its Grant.
	Addresses []netip.Addr
	MAC       MAC
	VNI       VNI
	Since     time.Time
	// Tap: it is a device on the node, as of a VM, so it has no proxy.
	Tap bool
}
