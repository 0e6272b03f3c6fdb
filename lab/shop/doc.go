// Package shop is the demo's own application: small HTTP servers that say who
// they are, whom they see and what their neighbour answered, and a client.
//
// In: what to say and whom to ask. Out: one line of text per request. It knows
// nothing of Moiré; it is what a user would bring.
package shop
