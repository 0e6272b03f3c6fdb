// Package record holds the one schema of what happened: a session or a request.
//
// In: nothing; these are plain values. Out: Record and its stable JSON field
// names, which users, dry runs, explain, audit and the UI stand on. It never
// collects, keeps or ships anything; that is flow's work.
package record
