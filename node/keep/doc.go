// Package keep keeps a program running that must outlive the agent: a proxy.
//
// In: the program, a cgroup of its own, and who says which process of it serves.
// Out: one process that serves, started again when it ends or hangs, replaced
// when the file of the program is another one: the new process serves before the
// old one is asked to end. Whoever is in the cgroup already, because an earlier
// agent started it, is kept as it is.
// When Run ends the process goes on; End and Kill are for good. It never ends a
// process that is not in the cgroup, and never knows one by name.
package keep
