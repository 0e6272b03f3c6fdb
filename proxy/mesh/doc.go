// Package mesh finds what the proxy has to know about a connection of a tenant
// network: whose it is, who is at the other end, which Listener it is for, and
// what the Sets of both sides say about it.
//
// In: an l7.Config with Mesh. Out: a Table, immutable, looked up once for each
// connection, by network id and address: never by address alone.
// It is pure. It never decides about one request (proxy/authz does), and who is
// not in the Table is unknown: identity 0, not in the mesh.
package mesh
