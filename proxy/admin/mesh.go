package admin

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot/l7"
)

// routes shows where requests go, rule by rule.
func (s *Server) routes(w http.ResponseWriter, r *http.Request) {
	var shown l7.Config
	if cfg := s.o.Proxy.Config(); cfg != nil {
		b, err := configJSON(&l7.Config{Routes: cfg.Routes}) // without what nobody may see
		if err == nil {
			err = json.Unmarshal(b, &shown)
		}
		if err != nil {
			refuse(w, http.StatusInternalServerError, "%v", err)
			return
		}
	}
	all := shown.Routes
	show(w, r, notNil(all), func(w io.Writer) {
		var rows [][]string
		for i := range all {
			rows = append(rows, routeRows(&all[i])...)
		}
		table(w, []string{"ROUTE", "RULE", "KIND", "HOSTS", "MATCHES", "BACKENDS"}, rows)
	})
}

func routeRows(r *l7.Route) (rows [][]string) {
	hosts := "*"
	if len(r.Hostnames) > 0 {
		hosts = strings.Join(r.Hostnames, ",")
	}
	for i := range r.Rules {
		rule := &r.Rules[i]
		var matches, backends []string
		for j := range rule.Matches {
			matches = append(matches, matchText(&rule.Matches[j]))
		}
		for _, b := range rule.Backends {
			text := b.Cluster
			if len(rule.Backends) > 1 {
				weight := uint32(1)
				if b.Weight != nil {
					weight = *b.Weight
				}
				text += "=" + strconv.FormatUint(uint64(weight), 10)
			}
			backends = append(backends, text)
		}
		rows = append(rows, []string{r.Name, cmp.Or(rule.Name, strconv.Itoa(i)), string(cmp.Or(r.Kind, l7.HTTPRoute)), hosts,
			orNone(strings.Join(matches, " | ")), orNone(strings.Join(backends, ","))})
	}
	return rows
}

func matchText(m *l7.Match) string {
	var all []string
	if m.Method != "" {
		all = append(all, m.Method)
	}
	if m.Path != nil {
		all = append(all, map[l7.MatchKind]string{l7.Prefix: "", l7.Regex: "~", l7.Exact: "=", "": "="}[m.Path.Kind]+m.Path.Value)
	}
	if m.GRPC != nil {
		all = append(all, cmp.Or(m.GRPC.Service, "*")+"/"+cmp.Or(m.GRPC.Method, "*"))
	}
	for _, h := range m.Headers {
		all = append(all, h.Name+"="+h.Value)
	}
	for _, q := range m.Query {
		all = append(all, "?"+q.Name+"="+q.Value)
	}
	return strings.Join(all, " ")
}

// Workload is one interface that the proxy speaks for.
type Workload struct {
	VNI       uint32   `json:"vni"`
	Name      string   `json:"name"`
	Mode      string   `json:"mode"`
	Addresses []string `json:"addresses"`
	SPIFFE    string   `json:"spiffe,omitempty"`
	// Until its certificate is good; zero: it has none.
	Until time.Time `json:"until,omitzero"`
	View  string    `json:"view"`
}

// workloads shows whom the proxy speaks for in tenant networks.
func (s *Server) workloads(w http.ResponseWriter, r *http.Request) {
	var all []Workload
	if cfg := s.o.Proxy.Config(); cfg != nil && cfg.Mesh != nil {
		until := map[string]time.Time{}
		for _, c := range s.o.Proxy.State().Certificates {
			until[c.Name] = c.NotAfter
		}
		for i := range cfg.Mesh.Workloads {
			k := &cfg.Mesh.Workloads[i]
			one := Workload{VNI: k.VNI, Name: k.Name, Mode: cmp.Or(k.Mode, "off"), SPIFFE: k.SPIFFE, View: k.View, Addresses: []string{}}
			if k.Certificate != "" {
				one.Until = until[k.Certificate]
			}
			for _, a := range k.Addresses {
				one.Addresses = append(one.Addresses, a.String())
			}
			all = append(all, one)
		}
	}
	show(w, r, notNil(all), func(w io.Writer) {
		var rows [][]string
		for _, k := range all {
			ends := "-"
			if !k.Until.IsZero() {
				ends = expiry(time.Until(k.Until))
			}
			rows = append(rows, []string{strconv.FormatUint(uint64(k.VNI), 10), k.Name, k.Mode, strings.Join(k.Addresses, ","), orNone(k.SPIFFE), ends})
		}
		table(w, []string{"VNI", "WORKLOAD", "MTLS", "ADDRESSES", "IDENTITY", "CERTIFICATE"}, rows)
	})
}

// filters of records, by the name in the query.
var filters = map[string]func(r *record.Record, want string) bool{
	"workload": func(r *record.Record, want string) bool {
		return r.Source.Project+"/"+r.Source.Workload == want || r.Destination.Project+"/"+r.Destination.Workload == want
	},
	"direction": func(r *record.Record, want string) bool { return r.Direction == want },
	"verdict":   func(r *record.Record, want string) bool { return r.Verdict == want },
	"rule":      func(r *record.Record, want string) bool { return r.Rule == want },
	"route":     func(r *record.Record, want string) bool { return r.Route == want },
	"method":    func(r *record.Record, want string) bool { return r.Request != nil && r.Request.Method == want },
	"host":      func(r *record.Record, want string) bool { return r.Request != nil && r.Request.Host == want },
	"path": func(r *record.Record, want string) bool {
		return r.Request != nil && strings.HasPrefix(r.Request.Path, want)
	},
	"status": func(r *record.Record, want string) bool { // 503, or 5xx
		have := "0"
		if r.Request != nil {
			have = strconv.Itoa(r.Request.Status)
		}
		return have == want || len(have) == 3 && want == have[:1]+"xx"
	},
}

// chosen are the records that all filters of a query let through.
func chosen(r *http.Request) (func([]record.Record) []record.Record, error) {
	q := r.URL.Query()
	for name := range q {
		if filters[name] == nil && !slices.Contains([]string{"last", "follow", "format"}, name) {
			return nil, fmt.Errorf("%q is unknown; filters are %s", name, strings.Join(filterNames, ", "))
		}
	}
	return func(all []record.Record) []record.Record {
		return slices.DeleteFunc(slices.Clone(all), func(r record.Record) bool {
			for name, f := range filters {
				if want := q.Get(name); want != "" && !f(&r, want) {
					return true
				}
			}
			return false
		})
	}, nil
}

var filterNames = slices.Sorted(maps.Keys(filters))
