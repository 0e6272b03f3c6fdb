// Package remote talks to the API server over plain HTTP.
//
// In: a kubeconfig and requests. Out: bodies as they came, or an error that
// carries the exit code, the server's own reason and the command that mends it.
// It never prints and keeps nothing on disk. It uses client-go only to read
// kubeconfigs and to build the HTTP client, because a typed clientset costs
// start time and tens of megabytes.
package remote
