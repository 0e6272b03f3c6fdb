// Package supervise keeps the child processes of `moire up` running.
//
// In: programs with their arguments and a log file. Out: running children that
// are started again when they die, an orderly end, and a note on disk from
// which `moire down` can end them when moire itself was killed. It never ends
// a process by name: only by a process id whose start time it remembers.
package supervise
