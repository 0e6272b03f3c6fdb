// Package pcapng writes captured packets as a pcapng file, which Wireshark and
// tcpdump open: one interface for each place where packets were seen, and a
// comment on each packet that names the verdict, the rule or the reason of the
// drop.
//
// In: snapshot.Captured. Out: the file. It never reads packets or reorders them.
package pcapng
