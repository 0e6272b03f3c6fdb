package pcapng

import (
	"cmp"
	"fmt"
	"io"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"moire.dev/moire/snapshot"
)

// Writer of one file.
type Writer struct {
	out        io.Writer
	ng         *pcapgo.NgWriter // made with the first packet
	interfaces map[string]int
}

// NewWriter writes to w; nothing is written before the first packet or Flush.
func NewWriter(w io.Writer) *Writer { return &Writer{out: w, interfaces: map[string]int{}} }

// Write adds one packet.
func (w *Writer) Write(p snapshot.Captured) error {
	id, err := w.interfaceOf(p)
	if err != nil {
		return err
	}
	return w.ng.WritePacketWithOptions(gopacket.CaptureInfo{
		Timestamp: p.Time, CaptureLength: len(p.Data), Length: max(p.Length, len(p.Data)), InterfaceIndex: id,
	}, p.Data, pcapgo.NgPacketOptions{Comments: []string{Comment(p)}})
}

// Flush writes what is buffered; a capture without packets becomes a file
// without packets.
func (w *Writer) Flush() error {
	if w.ng == nil {
		if err := w.begin(pcapgo.NgInterface{Name: "none", LinkType: layers.LinkTypeEthernet}); err != nil {
			return err
		}
	}
	return w.ng.Flush()
}

func (w *Writer) begin(first pcapgo.NgInterface) (err error) {
	w.ng, err = pcapgo.NewNgWriterInterface(w.out, first, pcapgo.NgWriterOptions{
		SectionInfo: pcapgo.NgSectionInfo{Application: "moire capture"},
	})
	return err
}

// interfaceOf is the number of the place where the packet was seen.
func (w *Writer) interfaceOf(p snapshot.Captured) (int, error) {
	name := fmt.Sprintf("%s %s", p.Node, p.Where)
	if p.Interface != "" {
		name += " " + p.Interface
	}
	if id, ok := w.interfaces[name]; ok {
		return id, nil
	}
	what := pcapgo.NgInterface{
		Name: name, Description: fmt.Sprintf("network id %d", p.VNI),
		LinkType: layers.LinkTypeEthernet, TimestampResolution: 9,
	}
	id := 0
	if w.ng == nil {
		if err := w.begin(what); err != nil {
			return 0, err
		}
	} else {
		var err error
		if id, err = w.ng.AddInterface(what); err != nil {
			return 0, err
		}
	}
	w.interfaces[name] = id
	return id, nil
}

// Comment is what the packet's comment says, such as
// "deny by isolated/shop/db/ingress, node n1, from-workload".
func Comment(p snapshot.Captured) string {
	out := cmp.Or(p.Verdict, "seen")
	switch {
	case p.Rule != "":
		out += " by " + p.Rule
	case p.Reason != "":
		out += ": " + p.Reason
	}
	return fmt.Sprintf("%s, node %s, %s", out, p.Node, p.Where)
}
