// Package identity says who is who: the CA of the control plane, the CAs of the
// Domains, the names of nodes and Workloads, and the tokens with which a node
// asks for its first certificate.
//
// In: a directory or another Vault that holds the CA. Out: CA, which signs the certificates of
// nodes and of the control plane, reads the name out of a node's certificate
// and checks tokens; Domains, which certify Workloads and rotate their roots;
// NodeID and WorkloadID, the SPIFFE names.
// It never listens, never talks to a node, never logs, and never lets a
// private key or the secret of a token out of its files.
package identity
