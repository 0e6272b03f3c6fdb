// Package bpf holds the packet programs (C, read moire.c first) and the Go that
// bpf2go makes of them; both objects and generated code are committed, so that
// users need no clang.
//
// In: nothing. Out: the loaded specs and the Go twins of the C structs. It never
// opens, pins or attaches anything; that is datapath's work.
package bpf

//go:generate bpf2go -target bpfel -strip llvm-strip -cc clang -type settings -type iface -type addr_key -type endpoint -type route_key -type node -type set_row -type policy_key -type verdict -type session_key -type guise_key -type guise -type alias -type chain_key -type chain -type function_key -type hop -type session -type event -type drop_key -type allowance -type rule_name -type denied_key -type denial -type fragment_key -type ports -type share -type rate_key -type rate -type bucket -type service_key -type service -type choice -type slots_key -type slots_row -type backend_key -type backend -type client -type favourite -type watch -type sighting -type outlook -type exit -type masquerade -type front -type host_port_key -type proxy -type frontend_key -type standing -type stand -type listener_key Moire moire.c -- -O2 -g -Wall -Werror -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
