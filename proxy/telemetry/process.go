package telemetry

import (
	"bytes"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
)

// own writes how telemetry itself and the process are.
func (x *text) own(t *Telemetry) {
	x.family("moire_proxy_build_info", "gauge", "Constant 1, labelled with the version of the proxy.")
	x.sample("moire_proxy_build_info", 1, "version", t.o.Version, "go", runtime.Version())
	x.family("moire_proxy_records_total", "counter", "Records of requests that were made.")
	x.sample("moire_proxy_records_total", t.collected.Load())
	x.family("moire_proxy_records_lost_total", "counter", "Records of requests that came faster than they could be read.")
	x.sample("moire_proxy_records_lost_total", t.lost())
	x.family("moire_proxy_outlet_delivered_total", "counter", "Lines and spans delivered.")
	for i := range t.outletCounts {
		x.sample("moire_proxy_outlet_delivered_total", t.outletCounts[i].delivered.Load(), "outlet", outletNames[i])
	}
	x.family("moire_proxy_outlet_lost_total", "counter", "Lines and spans that could not be delivered.")
	for i := range t.outletCounts {
		x.sample("moire_proxy_outlet_lost_total", t.outletCounts[i].lost.Load(), "outlet", outletNames[i])
	}
	x.process(t)
}

// process has the names that Prometheus' own libraries use.
func (x *text) process(t *Telemetry) {
	x.family("process_start_time_seconds", "gauge", "Seconds since 1970 when the proxy was started.")
	x.float("process_start_time_seconds", float64(t.start.UnixMilli())/1e3)
	if p, ok := readProcess(); ok {
		x.family("process_cpu_seconds_total", "counter", "Seconds of CPU, user and system.")
		x.float("process_cpu_seconds_total", p.cpu)
		x.family("process_resident_memory_bytes", "gauge", "Resident memory.")
		x.float("process_resident_memory_bytes", p.resident)
	}
	samples := []metrics.Sample{
		{Name: "/sched/goroutines:goroutines"}, {Name: "/gc/cycles/total:gc-cycles"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/total:bytes"},
	}
	metrics.Read(samples)
	for i, f := range []struct{ name, kind, help string }{
		{"go_goroutines", "gauge", "Goroutines."},
		{"go_gc_cycles_total", "counter", "Cycles of the garbage collector."},
		{"go_heap_objects_bytes", "gauge", "Bytes of objects on the heap, dead ones that were not swept included."},
		{"go_memory_bytes", "gauge", "Bytes that Go's runtime has mapped."},
	} {
		if samples[i].Value.Kind() == metrics.KindUint64 {
			x.family(f.name, f.kind, f.help)
			x.sample(f.name, samples[i].Value.Uint64())
		}
	}
}

type process struct{ cpu, resident float64 }

// clockTicks is USER_HZ, which is 100 on every architecture of Linux that Go
// runs on.
const clockTicks = 100

func readProcess() (p process, ok bool) {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return p, false
	}
	// After the name, which may hold anything, in parentheses: field 3 and on.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 22 {
		return p, false
	}
	user, err1 := strconv.ParseFloat(string(f[14-3]), 64)
	system, err2 := strconv.ParseFloat(string(f[15-3]), 64)
	pages, err3 := strconv.ParseFloat(string(f[24-3]), 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return p, false
	}
	return process{cpu: (user + system) / clockTicks, resident: pages * float64(os.Getpagesize())}, true
}
