package analyze

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/url"
	"path"
	"slices"
	"strings"
)

// The part of SARIF 2.1.0 (OASIS standard) that is written here, with its
// names.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool       sarifTool     `json:"tool"`
		ColumnKind string        `json:"columnKind"`
		Results    []sarifResult `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		Version        string      `json:"version,omitempty"`
		InformationURI string      `json:"informationUri"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID               string    `json:"id"`
		Name             string    `json:"name"`
		ShortDescription sarifText `json:"shortDescription"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		RuleID       string            `json:"ruleId"`
		RuleIndex    int               `json:"ruleIndex"`
		Level        string            `json:"level"`
		Message      sarifText         `json:"message"`
		Locations    []sarifLocation   `json:"locations"`
		Fingerprints map[string]string `json:"partialFingerprints"`
	}
	sarifLocation struct {
		Physical *sarifPhysical `json:"physicalLocation,omitempty"`
		Logical  []sarifLogical `json:"logicalLocations"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   *sarifRegion  `json:"region,omitempty"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine int `json:"startLine"`
	}
	sarifLogical struct {
		Name               string `json:"name"`
		FullyQualifiedName string `json:"fullyQualifiedName"`
		Kind               string `json:"kind"`
	}
)

// Identifiers of the standard, and where our codes are explained.
const (
	sarifSchema  = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
	sarifVersion = "2.1.0"
	about        = "https://moire.dev/moire"
)

// SARIF writes the Findings as a SARIF 2.1.0 log, which code hosts and editors
// read. Version is that of this program. Codes that are not ours, such as those
// of Problems that were made Findings, are described by themselves.
func SARIF(w io.Writer, fs []Finding, version string) error {
	driver := sarifDriver{Name: "moire analyze", Version: version, InformationURI: about}
	index := map[string]int{}
	rule := func(code, name, text string) {
		index[code] = len(driver.Rules)
		driver.Rules = append(driver.Rules, sarifRule{ID: code, Name: name, ShortDescription: sarifText{text}})
	}
	for _, k := range kinds {
		rule(k.code, k.name, k.text)
	}
	run := sarifRun{ColumnKind: "unicodeCodePoints", Results: []sarifResult{}}
	for _, f := range fs {
		if _, known := index[f.Code]; !known {
			rule(f.Code, strings.ToLower(f.Code), "See docs/problems.md")
		}
		run.Results = append(run.Results, f.sarif(index[f.Code]))
	}
	run.Tool.Driver = driver
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(sarifLog{Schema: sarifSchema, Version: sarifVersion, Runs: []sarifRun{run}})
}

func (f Finding) sarif(rule int) sarifResult {
	text := f.Object + ": " + f.Reason
	if f.Fix != "" {
		text += "; " + f.Fix
	}
	name := f.Object
	if f.Field != "" {
		name += " " + f.Field
	}
	at := sarifLocation{Logical: []sarifLogical{{Name: f.Object, FullyQualifiedName: name, Kind: "object"}}}
	if f.File != "" {
		at.Physical = &sarifPhysical{Artifact: sarifArtifact{URI: fileURI(f.File)}}
		if f.Line > 0 {
			at.Physical.Region = &sarifRegion{StartLine: f.Line}
		}
	}
	// The same finding keeps its fingerprint when lines move.
	sum := sha256.Sum256([]byte(strings.Join(slices.Concat([]string{f.Code, f.Object, f.Field}, f.Related), "\x00")))
	return sarifResult{RuleID: f.Code, RuleIndex: rule, Level: string(f.Severity), Message: sarifText{text + "."}, Locations: []sarifLocation{at},
		Fingerprints: map[string]string{"moireFinding/v1": hex.EncodeToString(sum[:16])}}
}

// fileURI is a relative reference, or file:// for an absolute path.
func fileURI(name string) string {
	name = strings.ReplaceAll(name, `\`, "/")
	if path.IsAbs(name) {
		return (&url.URL{Scheme: "file", Path: path.Clean(name)}).String()
	}
	return (&url.URL{Path: path.Clean(name)}).EscapedPath()
}
