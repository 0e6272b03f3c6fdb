// Package door is the unix socket between an agent and the proxy of its node,
// both ends of it. The agent makes and owns what belongs to the kernel: network
// namespaces and the listening sockets in them. It hands duplicates over
// (SCM_RIGHTS), so no connection is refused while a proxy is replaced.
//
// In, at the agent's end (Agent): a State, and whose descriptors are in it. Out,
// at the proxy's end (Proxy): the same State with descriptors of its own, told
// to a Served; back come its answer (applied, or refused and why), and a sign of
// life that it gives only when the loop of every worker has turned. Records is
// the agent's end of what the proxy tells of requests.
//
// Either end may end and come again at any time: a Proxy goes on with what it
// has and knocks until an Agent opens, an Agent sends everything to whoever
// knocks. Of two proxies the newer one serves as soon as it has applied the
// State; then the older one is told to drain. A configuration is sent whole
// when it changed, descriptors only when they are others.
//
// It never looks into a configuration, never makes a socket that carries
// traffic, and lets only root and its own user in: what passes has private keys.
package door
