package local

import (
	"net/netip"
	"time"
)

// Paths of the agent's API.
const (
	AttachPath      = "/v1/attach"      // POST Attach -> Attached
	DetachPath      = "/v1/detach"      // POST Detach -> {}
	StatusPath      = "/v1/status"      // GET -> Status
	AttachmentsPath = "/v1/attachments" // GET -> []Attachment
	DumpPath        = "/v1/dump"        // GET -> text
	FlowsPath       = "/v1/flows"       // GET -> records, one JSON object a line
	ConsentPath     = "/v1/consent"     // POST Consent -> {}
	ProxiesPath     = "/v1/proxies"     // GET -> []Proxy
	ProxyPath       = "/v1/proxy"       // GET ?name=NAME&door=clusters -> what its administrator's door says
	ReplacePath     = "/v1/replace"     // POST -> {}, when other processes serve
)

// DefaultIfName is the first interface of a Workload when it says nothing.
const DefaultIfName = "eth0"

// NoRoute as DefaultRoute: the Workload gets no default route.
const NoRoute = "none"

// Attach asks for one or more interfaces in a network namespace. To repeat it
// is no error: the answer is the same.
type Attach struct {
	Project  string `json:"project"`
	Workload string `json:"workload"`
	// Networks, at least one: of the project, or "project/network" where that
	// Network consents.
	Networks []string `json:"networks"`
	// Netns is the path of the network namespace as the agent sees it. Unset
	// for a Tap.
	Netns string `json:"netns,omitempty"`
	// IfName of the first interface; the others count on from its number.
	// Default: the first of eth0, eth1, ... that is not an interface of the
	// Workload yet.
	IfName string `json:"ifName,omitempty"`
	// IfNames of each of Networks, in order, instead of IfName; "": by default.
	IfNames []string `json:"ifNames,omitempty"`
	// DefaultRoute is the one of Networks whose gateway gets what is in no
	// Network, or NoRoute. Default: the first, unless the Workload has another
	// interface that does.
	DefaultRoute string `json:"defaultRoute,omitempty"`
	// Tap makes persistent tap devices on the node, for a VM, instead of
	// interfaces in a namespace. Interface.IfName names them.
	Tap bool `json:"tap,omitempty"`
	// Owner and Group may open the taps; 0: only root.
	Owner uint32 `json:"owner,omitempty"`
	Group uint32 `json:"group,omitempty"`
	// DHCP leaves addresses and routes to the Workload, which asks for them by
	// DHCP and router solicitations. Always so for a Tap.
	DHCP bool `json:"dhcp,omitempty"`
	// Account and Labels that the Workload claims; a declared Workload of the
	// same name overrides both. Account is by default "default".
	Account string            `json:"account,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	// Persist keeps the attachment until it is detached, also when the
	// namespace goes and comes back at the same path. Otherwise it ends with
	// the process PID, or without PID with the namespace.
	Persist bool `json:"persist,omitempty"`
	// PID is a process whose end detaches. 0: none.
	PID int `json:"pid,omitempty"`
	// WaitMillis bounds how long the answer may take in milliseconds; 0 means 10 s.
	WaitMillis int `json:"waitMillis,omitempty"`
}

// Attached answers Attach.
type Attached struct {
	Interfaces []Interface `json:"interfaces"`
	// WorkloadAPI is where the SPIFFE Workload API is, as
	// SPIFFE_ENDPOINT_SOCKET says it.
	WorkloadAPI string `json:"workloadAPI,omitempty"`
	// Warnings say what is not as it should be yet, such as a control plane
	// that is away.
	Warnings []string `json:"warnings,omitempty"`
}

// Interface is one attachment as it is in the namespace.
type Interface struct {
	Network   string       `json:"network"`
	IfName    string       `json:"ifName"`
	VNI       uint32       `json:"vni"`
	Addresses []netip.Addr `json:"addresses"`
	// Prefixes of the Network: what is reachable without a Link.
	Prefixes []netip.Prefix `json:"prefixes"`
	Gateways []netip.Addr   `json:"gateways"` // one for each family
	MAC      string         `json:"mac"`
	MTU      int            `json:"mtu,omitempty"` // bytes; 0: of the underlay
	// Nameservers answer names in the Network, and Search are the domains of
	// short names. None: the Network has no name service.
	Nameservers []netip.Addr `json:"nameservers,omitempty"`
	Search      []string     `json:"search,omitempty"`
}

// Detach takes interfaces away; no Networks means all of the Workload.
type Detach struct {
	Project  string   `json:"project"`
	Workload string   `json:"workload"`
	Networks []string `json:"networks,omitempty"`
}

// Attachment is one interface as the agent knows it.
type Attachment struct {
	Interface
	Project  string            `json:"project"`
	Workload string            `json:"workload"`
	Account  string            `json:"account"`
	Labels   map[string]string `json:"labels,omitempty"`
	Netns    string            `json:"netns"`
	Host     string            `json:"host"` // the end of the pair on the node, or the tap
	Tap      bool              `json:"tap,omitempty"`
	DHCP     bool              `json:"dhcp,omitempty"`
	PID      int               `json:"pid,omitempty"`
	Persist  bool              `json:"persist,omitempty"`
	Since    time.Time         `json:"since"`
	// State is pending, addressed, plugged or ready.
	State string `json:"state"`
	// Why says what a state other than ready waits for.
	Why string `json:"why,omitempty"`
}

// Status is how the agent is.
type Status struct {
	Node      string     `json:"node"`
	Address   netip.Addr `json:"address"`
	Agent     string     `json:"agent"` // version
	Started   time.Time  `json:"started"`
	Connected bool       `json:"connected"` // to the control plane
	// WorkloadAPI is where the SPIFFE Workload API is, as
	// SPIFFE_ENDPOINT_SOCKET says it.
	WorkloadAPI string `json:"workloadAPI"`
	// Stale: the snapshot in force may be older than what the control plane
	// wants, because it is away.
	Stale   bool   `json:"stale"`
	Wanted  string `json:"wanted"`  // version that came last
	Applied string `json:"applied"` // version that the kernel has
	// AppliedSince is when that came into force; WantedSince is when the wanted
	// one came.
	AppliedSince time.Time `json:"appliedSince,omitzero"`
	WantedSince  time.Time `json:"wantedSince,omitzero"`
	Error        string    `json:"error,omitempty"`
	// Held says what waits for somebody's consent, and how to give it.
	Held string `json:"held,omitempty"`
	// Repairs counts rows of the kernel's tables that somebody else had changed
	// and that were repaired, since the agent started; LastRepair says which.
	Repairs    uint64 `json:"repairs,omitempty"`
	LastRepair string `json:"lastRepair,omitempty"`

	Networks       int    `json:"networks"`
	Endpoints      int    `json:"endpoints"`
	Attachments    int    `json:"attachments"`
	RecordsWaiting int    `json:"recordsWaiting"`
	RecordsLost    uint64 `json:"recordsLost"`
}

// Proxy is one proxy of the node.
type Proxy struct {
	Name string `json:"name"`
	PID  int    `json:"pid,omitempty"`
	// Up: it takes connections.
	Up    bool      `json:"up"`
	Since time.Time `json:"since,omitzero"`
	// Interfaces that it speaks for.
	Interfaces int `json:"interfaces"`
	// Error says why it does not serve what it must be.
	Error string `json:"error,omitempty"`
	// LeftOut are parts of its configuration that nobody could serve, and why.
	LeftOut []string `json:"leftOut,omitempty"`
	// Starts counts processes since the agent was started; Last says how the one
	// before this ended.
	Starts int    `json:"starts,omitempty"`
	Last   string `json:"last,omitempty"`
	Log    string `json:"log"`
	// Why says of each of its interfaces, project/workload/network, what it needs
	// a proxy for.
	Why map[string]string `json:"why,omitempty"`
}

// ProxyDoors are what a proxy can be asked for.
var ProxyDoors = []string{"config", "listeners", "routes", "workloads", "clusters", "certs", "stats", "metrics", "build"}

// Risks that somebody on the node can consent to.
const (
	// RiskMassDelete: a snapshot removes much of what the node is.
	RiskMassDelete = "mass-delete"
	// RiskLockOut: the firewall of the node lets no SSH in.
	RiskLockOut = "lock-out"
)

// Consent accepts a risk that the agent does not take by itself: it lets the
// snapshot through that is held back, or enforces the firewall.
type Consent struct {
	// Risk is RiskMassDelete by default.
	Risk string `json:"risk,omitempty"`
	// Version of the snapshot, with RiskMassDelete; "": the one that waits.
	Version string `json:"version,omitempty"`
}

// Problem is the body of every answer that is not 2xx.
type Problem struct {
	Error string `json:"error"`
}
