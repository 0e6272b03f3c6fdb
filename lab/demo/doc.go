// Package demo is the story that `moire demo` tells: two tenants with the same
// addresses on the same two nodes, one flow allowed, one denied, and why.
//
// In: where the binaries are, where to write. Out: a running lab with the
// demo's own application in it, proof on the screen and commands to try. It
// uses the commands that a user would use, and decides nothing itself.
package demo
