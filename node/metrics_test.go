package node

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"moire.dev/moire/datapath"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// TestDropsAreBounded: Networks are added up, and few rules of a reason stay apart.
func TestDropsAreBounded(t *testing.T) {
	var all []datapath.DropCount
	for i := range 1000 {
		for vni := range snapshot.VNI(2) {
			all = append(all, datapath.DropCount{Reason: "policy", Rule: fmt.Sprint("rule", i), Network: vni, Packets: uint64(i)})
		}
	}
	all = append(all, datapath.DropCount{Reason: "spoofed-ip", Packets: 7})
	got := drops(all)
	if len(got) != maxRules+2 || got[0].Rule != "rule999" || got[0].Packets != 1998 || got[maxRules].Rule != "others" || got[maxRules+1].Packets != 7 {
		t.Errorf("%d: %+v %+v", len(got), got[0], got[len(got)-2:])
	}
	sum := uint64(0)
	for _, d := range got {
		sum += d.Packets
	}
	if sum != 999*1000+7 {
		t.Errorf("%d in all", sum)
	}
}

// TestMetrics: what Prometheus gets of a running agent, and promtool has
// nothing to say about it.
func TestMetrics(t *testing.T) {
	needProgram(t, "promtool")
	m := newMachine(t)
	m.cfg.Metrics = "127.0.0.1:9464"
	m.writeSnapshot(func(s *snapshot.Snapshot) {
		k := snapshot.PolicyKey{VNI: 100, Identity: webIdentity, Direction: policy.Egress}
		s.Policies[k] = policy.Set{Default: policy.DefaultRule{ID: "default/shop/front/deny"}}
	})
	sh(t, "ip", "-n", ns(t, "n1"), "link", "set", "lo", "up")
	m.start()
	w1, w2 := addNetns(t, ns(t, "w1")), addNetns(t, ns(t, "w2"))
	m.attach("one", w1)
	two := m.attach("two", w2)
	if ping(w1, two.Addresses[0]) == nil {
		t.Error("not denied")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(_ context.Context, network, address string) (net.Conn, error) {
		return inNetns(m.netns, func() (net.Conn, error) { return net.Dial(network, address) })
	}}}
	resp, err := client.Get("http://" + m.cfg.Metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	text := string(body)
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(text)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool: %v: %s", err, out)
	}
	expectAll(t, "metrics", text, `^moire_node_build_info\{version="test"\} 1$`, `^moire_node_attachments\{state="plugged"\} 2$`, `^moire_node_control_plane_connected 0$`,
		`^moire_node_dropped_packets_total\{reason="policy",rule="default/shop/front/deny"\} [1-9]`, `^moire_node_snapshot_age_seconds `, `^moire_node_records_lost_total 0$`,
		`^moire_node_kernel_repairs_total 0$`, `^moire_node_dns_queries_total `, `^moire_node_checks\{state="healthy"\} 0$`, `^process_open_fds `)
	m.stop()
}
