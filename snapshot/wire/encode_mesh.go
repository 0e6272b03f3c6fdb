package wire

import (
	"cmp"
	"encoding/json"
	"fmt"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
)

// meshRows yields the tables of the mesh; see rows.
func meshRows(yield func(*Row, error) bool, s *snapshot.Snapshot, keysOnly bool) bool {
	return table(yield, keysOnly, "trust", s.Trusts, cmp.Compare[string], trustRow) &&
		table(yield, keysOnly, "frontend", s.Frontends, snapshot.FrontendKey.Compare, frontendRow) &&
		table(yield, keysOnly, "route", s.Routes, cmp.Compare[string], routeRow) &&
		table(yield, keysOnly, "cluster", s.Clusters, cmp.Compare[string], clusterRow) &&
		table(yield, keysOnly, "key set", s.KeySets, cmp.Compare[string], keySetRow) &&
		table(yield, keysOnly, "gateway", s.Gateways, snapshot.GatewayKey.Compare, gatewayRow)
}

func fromServiceKey(k snapshot.ServiceKey) *ServiceKey {
	if k == (snapshot.ServiceKey{}) {
		return nil
	}
	return &ServiceKey{Addr: fromAddr(k.Addr), Protocol: uint32(k.Protocol), Port: uint32(k.Port)}
}

func trustRow(k string, v *snapshot.Trust) (*Row, string) {
	out := &Trust{Name: k}
	if v != nil {
		out.TrustDomain, out.Domain, out.Roots, out.Keys, out.Federates = v.TrustDomain, v.Domain, v.Roots, v.Keys, v.Federates
		k = v.Name
	}
	return &Row{Row: &Row_Trust{out}}, k
}

func frontendRow(k snapshot.FrontendKey, v *snapshot.Frontend) (*Row, snapshot.FrontendKey) {
	out := &Frontend{Key: fromServiceKey(k.ServiceKey), Project: k.Project}
	if v != nil {
		out.Service, out.Protocol, out.Cluster, out.Routes, out.Why = v.Service, string(v.Protocol), v.Cluster, v.Routes, v.Why
		k = v.FrontendKey
	}
	return &Row{Row: &Row_Frontend{out}}, k
}

func routeRow(k string, v *l7.Route) (*Row, string) {
	out := &Route{Name: k}
	if v != nil {
		out.Json, k = fromJSON(*v, v.Name)
	}
	return &Row{Row: &Row_Route{out}}, k
}

func clusterRow(k string, v *snapshot.Cluster) (*Row, string) {
	out := &Cluster{Name: k}
	if v != nil {
		out.Service, out.Second, out.Asked = fromServiceKey(v.Service), fromServiceKey(v.Second), v.Asked
		out.Json, k = fromJSON(v.Cluster, v.Name)
	}
	return &Row{Row: &Row_Cluster{out}}, k
}

// fromJSON is a word in JSON, and its name. A number that JSON does not know
// makes a name under which nothing is stored, so that the row is not sent.
func fromJSON(v any, name string) ([]byte, string) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Sprintf("%s (%v)", name, err)
	}
	return b, name
}

func gatewayRow(k snapshot.GatewayKey, v *snapshot.Gateway) (*Row, snapshot.GatewayKey) {
	out := &Gateway{Project: k.Project, Name: k.Name}
	if v != nil {
		var name string
		if out.Json, name = fromJSON(v, v.Name); name != v.Name {
			return &Row{Row: &Row_Gateway{out}}, snapshot.GatewayKey{Name: name}
		}
		k = v.GatewayKey
	}
	return &Row{Row: &Row_Gateway{out}}, k
}

func keySetRow(k string, v *l7.KeySet) (*Row, string) {
	out := &KeySet{Uri: k}
	if v != nil {
		out.Json, out.Until = v.JSON, v.Until
		k = v.URI
	}
	return &Row{Row: &Row_KeySet{out}}, k
}
