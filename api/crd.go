package api

import "embed"

// CRDs holds the CustomResourceDefinitions of the group moire.dev as YAML, one
// file per kind, under "crd/".
//
//go:embed crd/*.yaml
var CRDs embed.FS
