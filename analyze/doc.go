// Package analyze finds what is probably not meant in what people wrote,
// before anything runs: rules that can never match or never decide, Policies
// that select nobody, Links over which nothing may pass, Services that nobody
// may reach, consents that nobody uses.
//
// In: objects of our kinds, and Namespaces for the Domains of the projects. Out:
// Findings in one order, each with a stable code (MOI4xxx, docs/problems.md),
// and writers of text, JSON and SARIF 2.1.0.
// It is pure: no clock, no I/O but the writer that it is given, no server, no
// world. It knows declared Workloads only; so what it says of labels is a
// warning and never a refusal. It never says twice what compile refuses.
package analyze
