package v1alpha1

// Codes of the Problems of one object. docs/problems.md says more of each.
const (
	CodeUnreadable   = "MOI1001" // the file cannot be read, or is no YAML
	CodeUnknownKind  = "MOI1002"
	CodeMissing      = "MOI1003"
	CodeUnknownField = "MOI1004"
	CodeWrongType    = "MOI1005"
	CodeDuplicateKey = "MOI1006"
	CodeTwice        = "MOI1007" // the object is there twice
	CodeTooMuch      = "MOI1008" // too deep, too long or too many
	CodeName         = "MOI1010"
	CodeCIDR         = "MOI1011"
	CodeOverlap      = "MOI1012"
	CodeRange        = "MOI1013"
	CodeOutside      = "MOI1014" // a range outside every prefix
	CodeChoice       = "MOI1015" // not one of the allowed words
	CodeNumber       = "MOI1016" // a number outside its limits
	CodeAction       = "MOI1018"
	CodeDirection    = "MOI1019"
	CodeProjects     = "MOI1020"
	CodeEmptyPolicy  = "MOI1021"
	CodeEmptyPeer    = "MOI1022"
	CodeExcept       = "MOI1023"
	CodeICMPPort     = "MOI1024"
	CodeEndPort      = "MOI1025"
	CodeAddress      = "MOI1026"
	CodeMAC          = "MOI1027"
	CodeRepeated     = "MOI1028"
	CodeSelector     = "MOI1029"
	CodeRuleName     = "MOI1030"
	CodeEnds         = "MOI1031" // a Link needs two Networks
	CodeTranslation  = "MOI1032"
	CodeChain        = "MOI1033" // functions of a Link that do not join on
	CodeHealth       = "MOI1034" // a check without a port
	CodeBackends     = "MOI1035" // not exactly one thing behind a Service
	CodeAlone        = "MOI1036" // a peer that must stand alone
	CodeEgress       = "MOI1037" // gateways and addresses without mode gateway, or the reverse
	CodeURL          = "MOI1038"
	CodeRate         = "MOI1039"
	CodeDNSName      = "MOI1040"
	CodeDNSData      = "MOI1041"
	CodeServer       = "MOI1042" // not address or address:port
	CodePortTwice    = "MOI1043"
	CodeLockOut      = "MOI1044" // a Firewall that locks SSH out
	CodeFederation   = "MOI1045" // neither a Domain nor a trust domain, or with itself
	CodeBundle       = "MOI1046" // cannot be read
	CodeRequest      = "MOI1050" // what a request or token shall be cannot be, or can never be
	CodeRequestPort  = "MOI1051" // a rule about requests for ports that carry none
	CodeExternal     = "MOI1052" // an external service asked by a rule that does not allow
)
