package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"moire.dev/moire/cli/remote"
	"moire.dev/moire/snapshot"
)

// capturedLine is one line of the answer: a packet, or a note at the end.
type capturedLine struct {
	snapshot.Captured
	// Missed counts packets that came faster than they could be sent.
	Missed uint64 `json:"missed"`
}

// openCaptures asks the control plane to capture, and hands out every packet
// as it comes, until all is over. started is called once the nodes know.
func (a *app) openCaptures(ctx context.Context, project string, q url.Values, started func(), each func(snapshot.Captured) error) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	body, _, err := client.Stream(ctx, remote.Request{Method: "POST", Path: ownAPI + "/namespaces/" + project + "/captures", Query: q})
	if err != nil {
		return err
	}
	defer body.Close()
	started()
	d := json.NewDecoder(bufio.NewReaderSize(body, 1<<16))
	for {
		var line capturedLine
		if err := d.Decode(&line); err != nil {
			if errors.Is(err, io.EOF) || ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("the capture broke off: %w", err)
		}
		if line.Missed > 0 {
			a.say("warning: %d packets came faster than they could be sent, and are missing; narrow the capture", line.Missed)
			continue
		}
		if err := each(line.Captured); err != nil {
			return err
		}
	}
}

// packetText is a frame in a few words: addresses, ports, protocol and flags.
func packetText(frame []byte) string {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	if arp, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP); ok {
		return fmt.Sprintf("ARP who has %d.%d.%d.%d", arp.DstProtAddress[0], arp.DstProtAddress[1], arp.DstProtAddress[2], arp.DstProtAddress[3])
	}
	network := p.NetworkLayer()
	if network == nil {
		return fmt.Sprintf("%d bytes that are not IP", len(frame))
	}
	src, dst := network.NetworkFlow().Endpoints()
	switch t := p.TransportLayer().(type) {
	case *layers.TCP:
		return fmt.Sprintf("%s:%d > %s:%d tcp %s", src, t.SrcPort, dst, t.DstPort, tcpFlags(t))
	case *layers.UDP:
		return fmt.Sprintf("%s:%d > %s:%d udp", src, t.SrcPort, dst, t.DstPort)
	case *layers.SCTP:
		return fmt.Sprintf("%s:%d > %s:%d sctp", src, t.SrcPort, dst, t.DstPort)
	}
	if i, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok {
		return fmt.Sprintf("%s > %s icmp %s", src, dst, i.TypeCode)
	}
	if i, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok {
		return fmt.Sprintf("%s > %s icmp %s", src, dst, i.TypeCode)
	}
	return fmt.Sprintf("%s > %s", src, dst)
}

func tcpFlags(t *layers.TCP) string {
	var out []string
	for _, f := range []struct {
		set  bool
		name string
	}{{t.SYN, "SYN"}, {t.FIN, "FIN"}, {t.RST, "RST"}, {t.PSH, "PSH"}, {t.ACK, "ACK"}} {
		if f.set {
			out = append(out, f.name)
		}
	}
	return strings.Join(out, ",")
}
