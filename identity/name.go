package identity

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// ServerName is a DNS name in every certificate of the control plane. Nodes
// expect it instead of the host that they dialled, so that an address may
// change, or be forwarded, without a new certificate. Node certificates never
// hold a DNS name, so no node can pose as the control plane.
const ServerName = "control.moire"

// nodePrefix begins the SPIFFE ID of every node.
const nodePrefix = "spiffe://moire/node/"

// maxName is the longest DNS name.
const maxName = 253

var subdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$`)

// NodeID is the SPIFFE ID of a node.
func NodeID(node string) string { return nodePrefix + node }

// WorkloadID is the SPIFFE ID of the Workloads of a project that run under one
// account.
func WorkloadID(trustDomain, project, account string) string {
	u := url.URL{Scheme: "spiffe", Host: trustDomain, Path: "/ns/" + project + "/sa/" + account}
	return u.String()
}

// CheckNodeName returns why the name cannot be that of a node, or nil. It must
// be an RFC 1123 subdomain of at most 253 characters, as every object name.
func CheckNodeName(node string) error {
	switch {
	case node == "":
		return errors.New("the node name is empty; give the node a name")
	case len(node) > maxName:
		return fmt.Errorf("the node name has %d characters; at most %d are allowed", len(node), maxName)
	case !subdomain.MatchString(node):
		return fmt.Errorf("%q cannot be a node name; use lower case letters, digits, '-' and '.', each part at most 63 characters and with a letter or digit at both ends", node)
	}
	return nil
}

// nodeName reads the name back from a SPIFFE ID, byte for byte.
func nodeName(id string) (string, error) {
	node, ok := strings.CutPrefix(id, nodePrefix)
	if !ok {
		return "", fmt.Errorf("%q is not the name of a node, which begins with %s", id, nodePrefix)
	}
	if err := CheckNodeName(node); err != nil {
		return "", err
	}
	return node, nil
}
