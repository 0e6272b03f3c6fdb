// Package show turns answers of the server into what people and programs read:
// aligned tables with kubectl's columns, JSON, YAML, names, JSONPath.
//
// In: bodies and values. Out: text on a writer. It never talks to a server and
// colours nothing unless it is told that a terminal reads.
package show
