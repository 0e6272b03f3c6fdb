// Package config reads the file of a proxy that stands alone.
//
// In: YAML or JSON text (Parse), or a path (Load). Out: an l7.Config that is
// valid, or every Problem at once, each with file, line, field, reason and what
// to do. It is strict: unknown fields, fields without a value, fields written
// twice and values of the wrong type are Problems. What the fields mean, and
// what l7.Config.Validate has against them, is said in snapshot/l7.
// It is bounded in size, depth and aliases, and never panics. It never applies
// a Config, never watches the file, and opens no other files than the
// certificates that a Config which was loaded by path names.
package config
