// Package attack holds clients that mean harm, and one that is honest.
//
// In: the address of a proxy, a time to live. Out: what an attacker could do
// (Outcome: sent, closed, after how much) and how an honest client fared
// meanwhile (Sample). Attackers speak HTTP/2 through x/net's Framer, which lets
// them write what no client should, and HTTP/1 as bytes.
// Every attacker ends by itself after its time, opens a bounded number of
// connections, and attacks nothing but loopback addresses.
package attack
