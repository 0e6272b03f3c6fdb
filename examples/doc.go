// Package examples holds intent that people can apply, and hands it to the
// demo and to the tests that run it. It never decides or acts.
package examples

import "embed"

// Demo is the intent of `moire demo`: two tenants with the same addresses.
//
//go:embed demo/*.yaml
var Demo embed.FS
