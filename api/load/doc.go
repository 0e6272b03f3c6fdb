// Package load reads what people write: YAML and JSON files of our kinds.
//
// In: files, directories or an in-memory file system. Out: Objects, defaulted
// and typed, and Problems with file and line: unknown fields (with the name
// that was probably meant), wrong types, missing fields, duplicate keys and
// objects, and everything that api/v1alpha1 validates. An object with a
// Problem that is no warning is left out.
// It is strict, bounded in depth and size, never panics and never talks to a
// server. The same files give the same result in the same order.
package load
