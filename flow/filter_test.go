package flow

import (
	"net/netip"
	"net/url"
	"testing"
	"time"

	"moire.dev/moire/flow/record"
)

func sample() record.Record {
	return record.Record{
		ID: "1", Time: epoch, Verdict: record.Deny, Rule: "policy/shop/db/ingress/0", ShadowRule: "policy/shop/audit/egress/x",
		Source:      record.End{Project: "shop", Workload: "web", Address: netip.MustParseAddr("10.0.0.1")},
		Destination: record.End{Project: "bank", Workload: "db", Address: netip.MustParseAddr("fd00::1")},
		Route:       "HTTPRoute shop/cart", TraceID: "trace-1", Request: &record.Request{ID: "req-1", Method: "GET", Path: "/cart?x=1", Status: 503},
	}
}

func TestFilter(t *testing.T) {
	for _, c := range []struct {
		query string
		want  bool
	}{
		{"", true},
		{"from=shop", true},
		{"from=shop/web", true},
		{"from=shop/db", false},
		{"from=bank", false},
		{"from=10.0.0.1", true},
		{"from=::ffff:10.0.0.1", true},
		{"from=10.0.0.0/24", true},
		{"from=10.0.1.0/24", false},
		{"to=fd00::1", true},
		{"to=fd00::/16", true},
		{"to=bank/db", true},
		{"verdict=deny", true},
		{"verdict=allow", false},
		{"project=shop", true},
		{"project=bank", true},
		{"project=ban", false},
		{"rule=policy/shop/db/ingress/0", true},
		{"rule=policy/shop/db", true},
		{"rule=policy/shop/d", false},
		{"rule=policy/shop/audit", true},
		{"since=5m", true},
		{"since=1m", false},
		{"since=2026-01-31T12:00:00Z", true},
		{"since=2026-01-31T12:00:01Z", false},
		{"from=shop&to=bank&verdict=deny&limit=3", true},
		{"from=shop&to=shop", false},
		{"id=1", true},
		{"id=req-1", true},
		{"id=trace-1", true},
		{"id=2", false},
		{"kind=session", false},
		{"kind=request", true},
		{"method=get&path=/cart&status=503&route=shop", true},
		{"status=5XX", true},
		{"status=4xx", false},
		{"status=500", false},
		{"method=POST", false},
		{"path=/admin", false},
		{"route=shop/cart", true},
		{"route=shop/car", false},
	} {
		v, err := url.ParseQuery(c.query)
		if err != nil {
			t.Fatal(err)
		}
		f, err := ParseFilter(v, epoch.Add(3*time.Minute))
		if err != nil {
			t.Errorf("%s: %v", c.query, err)
			continue
		}
		r := sample()
		if got := f.Match(&r); got != c.want {
			t.Errorf("%s: %v, want %v", c.query, got, c.want)
		}
		again, err := ParseFilter(f.Values(), epoch)
		if err != nil || !again.Since.Equal(f.Since) {
			t.Errorf("%s: Values gives %v, %v", c.query, again, err)
		}
		again.Since = f.Since
		if again != f {
			t.Errorf("%s: Values gives %+v, want %+v", c.query, again, f)
		}
	}
}

func TestFilterRefuses(t *testing.T) {
	for query, want := range map[string]string{
		"verdict=maybe":           `verdict="maybe" is not a verdict; write allow or deny`,
		"from=a/b/c":              `from="a/b/c" is not an end; write a project, project/workload, an address or a prefix`,
		"to=/b":                   `to="/b" is not an end; write a project, project/workload, an address or a prefix`,
		"since=monday":            `since="monday" is neither an age nor a time; write 5m or 2026-01-31T15:04:05Z`,
		"since=-5m":               `since="-5m" lies in the future; write an age such as 5m`,
		"kind=flow":               `kind="flow" is not a kind; write session or request`,
		"status=5x":               `status="5x" is not a status; write one such as 503, or a class such as 5xx`,
		"kind=session&method=GET": `kind=session has no method, path, status or route; write kind=request`,
		"limit=-1":                `limit="-1" is not a number of records; write 0 to 100000`,
		"limit=1000000":           `limit="1000000" is not a number of records; write 0 to 100000`,
	} {
		v, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseFilter(v, epoch); err == nil || err.Error() != want {
			t.Errorf("%s: %v\nwant %s", query, err, want)
		}
	}
}

func FuzzParseFilter(f *testing.F) {
	f.Add("from=shop/web&since=5m&limit=3")
	f.Fuzz(func(t *testing.T, query string) {
		v, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		flt, err := ParseFilter(v, epoch)
		if err != nil {
			return
		}
		r := sample()
		flt.Match(&r)
		if _, err := ParseFilter(flt.Values(), epoch); err != nil {
			t.Errorf("%q: own Values are refused: %v", query, err)
		}
	})
}
