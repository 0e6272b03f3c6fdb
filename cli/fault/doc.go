// Package fault holds the exit codes of moire and the shape of its errors.
//
// In: what went wrong, where, why and the command that mends it. Out: an error
// with an exit code and the text that people read. It never prints or exits.
package fault
