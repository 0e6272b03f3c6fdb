package v1alpha1

// Annotations of a Gateway of the class moire; and MTLSAnnotation says whether it is
// in the mesh: permissive, when nothing is said.
const (
	// NetworkAnnotation is the Network in which it stands, or project/network of
	// another one. It can be left out where the project has only one.
	NetworkAnnotation = "moire.dev/network"
	// NodesAnnotation are the nodes that may run it, separated by commas. Default:
	// all.
	NodesAnnotation = "moire.dev/nodes"
	// AccountAnnotation is the account of its identity. Default: "default".
	AccountAnnotation = "moire.dev/account"
	// GatewayLabel of the Workload that it is: its name.
	GatewayLabel = "gateway.networking.k8s.io/gateway-name"
	// GatewayClass is the class of Gateways that nodes run themselves.
	GatewayClass = "moire"
	// GatewayController is our name in GatewayClasses and in the status of routes.
	GatewayController = "moire.dev/control"
)
