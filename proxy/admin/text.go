package admin

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"moire.dev/moire/flow/record"
)

// table writes rows under a header, in columns. Nil: no header.
func table(w io.Writer, header []string, rows [][]string) {
	if header != nil {
		rows = append([][]string{header}, rows...)
	}
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			row[i] = plain(cell)
			widths[i] = max(widths[i], len(row[i]))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			if i > 0 {
				line.WriteString("  ")
			}
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-len(cell)))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// plain is text that does nothing to a terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (s *Server) listeners(w http.ResponseWriter, r *http.Request) {
	all := s.o.Proxy.State().Listeners
	show(w, r, notNil(all), func(w io.Writer) {
		var rows [][]string
		for _, l := range all {
			tls, state := "-", "open"
			if l.TLS {
				tls = "yes"
			}
			if l.Draining {
				state = "draining"
			}
			rows = append(rows, []string{l.Name, l.Address, l.Protocol, tls, strconv.Itoa(l.Connections), state})
		}
		table(w, []string{"NAME", "ADDRESS", "PROTOCOL", "TLS", "CONNECTIONS", "STATE"}, rows)
	})
}

func (s *Server) clusters(w http.ResponseWriter, r *http.Request) {
	all := s.o.Proxy.State().Clusters
	for i := range all {
		all[i].Endpoints = notNil(all[i].Endpoints)
	}
	show(w, r, notNil(all), func(w io.Writer) {
		for i, c := range all {
			if i > 0 {
				fmt.Fprintln(w)
			}
			line := fmt.Sprintf("%s: %s, %d active, %d connections, %d pending", c.Name, c.Balancer, c.Active, c.Connections, c.Pending)
			if c.Panic {
				line += ", PANIC: too few are healthy, all are used"
			}
			fmt.Fprintln(w, plain(line))
			var rows [][]string
			for _, e := range c.Endpoints {
				rows = append(rows, endpointRow(e))
			}
			table(w, []string{"  ADDRESS", "ZONE", "PRIORITY", "WEIGHT", "HEALTH", "EJECTIONS", "ACTIVE", "EWMA"}, rows)
		}
	})
}

func endpointRow(e Endpoint) []string {
	health := "well"
	if !e.Healthy {
		health = "unwell"
	}
	if e.Ejected > 0 {
		health += ", ejected for " + e.Ejected.Round(time.Second).String()
	}
	ewma := "-"
	if e.EWMA > 0 {
		ewma = e.EWMA.Round(time.Microsecond).String()
	}
	return []string{"  " + e.Address, orNone(e.Zone), strconv.Itoa(e.Priority), strconv.FormatUint(uint64(e.Weight), 10), health,
		strconv.Itoa(e.Ejections), strconv.Itoa(e.Active), ewma}
}

func (s *Server) certificates(w http.ResponseWriter, r *http.Request) {
	all := s.o.Proxy.State().Certificates
	show(w, r, notNil(all), func(w io.Writer) {
		var rows [][]string
		for _, c := range all {
			rows = append(rows, []string{c.Name, orNone(strings.Join(c.Names, ",")), c.NotAfter.UTC().Format(time.RFC3339), expiry(time.Until(c.NotAfter))})
		}
		table(w, []string{"NAME", "NAMES", "EXPIRES", "IN"}, rows)
	})
}

// expiry is a time left, in the unit that matters.
func expiry(left time.Duration) string {
	switch {
	case left <= 0:
		return "EXPIRED"
	case left >= 48*time.Hour:
		return strconv.Itoa(int(left/(24*time.Hour))) + "d"
	}
	return left.Truncate(time.Minute).String()
}

// recordLine is one request for people.
func recordLine(w io.Writer, r *record.Record) {
	q := r.Request
	if q == nil {
		q = &record.Request{Protocol: r.Protocol}
	}
	status := strconv.Itoa(q.Status)
	if q.GRPCStatus != nil {
		status += "/" + strconv.Itoa(*q.GRPCStatus)
	}
	fmt.Fprintln(w, plain(strings.Join([]string{
		r.Time.Format("15:04:05.000"), endText(r.Source), orNone(q.Method), orNone(q.Host + q.Path), q.Protocol, status,
		orNone(strings.Join(q.Flags, ",")), r.Latency.Round(time.Microsecond).String(),
		orNone(r.Route), orNone(q.Cluster), endText(r.Destination),
	}, " ")))
}

func endText(e record.End) string {
	if !e.Address.IsValid() {
		return "-"
	}
	return net.JoinHostPort(e.Address.String(), strconv.Itoa(int(e.Port)))
}

// notNil is [] in JSON where there is nothing.
func notNil[T any](all []T) []T {
	if all == nil {
		return []T{}
	}
	return all
}
