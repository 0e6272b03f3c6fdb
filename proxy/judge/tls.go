package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// ofOurCertificate are findings of testssl.sh about what the judge made for
// this run, which no proxy can change.
var ofOurCertificate = map[string]string{
	"cert_ocspURL":              "a test's authority has no OCSP",
	"cert_revocation":           "a test's authority has no OCSP and no CRL",
	"cert_crlDistributionPoint": "a test's authority has no CRL",
	"cert_chain_of_trust":       "a test's authority is known to the judge alone",
	"DNS_CAArecord":             "localhost has no records",
	"cert_validityPeriod":       "a test's certificate is short-lived",
	"cert_trust":                "judged by address",
	"engine_problem":            "about the openssl that testssl.sh runs with",
	"HSTS":                      "a field of the application, which a proxy does not make up",
	"HSTS_time":                 "a field of the application",
	"security_headers":          "fields of the application",
	"overall_grade":             "a summary of the findings above",
	"grade_cap_reason_1":        "a summary of the findings above",
	"grade_cap_reason_2":        "a summary of the findings above",
}

// testssl runs testssl.sh on the TLS listener; every finding above LOW fails.
func testssl(ctx context.Context, h *hall) ([]verdict, error) {
	origin, err := h.Origin(ctx, nil)
	if err != nil {
		return nil, err
	}
	c, _, tls := h.plain(origin)
	p, err := h.Proxy(ctx, h.kind, c, nil)
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, 9*time.Minute)
	defer cancel()
	_, port, err := net.SplitHostPort(tls)
	if err != nil {
		return nil, err
	}
	report := filepath.Join(h.Dir, "testssl.json")
	cmd := exec.CommandContext(bounded, "testssl", "--quiet", "--color", "0", "--nodns", "min", "--add-ca", h.PKI.CA, "--jsonfile", report, "--ip", "127.0.0.1", "localhost:"+port)
	out, ranErr := cmd.CombinedOutput() // its exit code counts findings
	b, err := os.ReadFile(report)
	if err != nil {
		return nil, fmt.Errorf("testssl.sh wrote no report (%w, %v):\n%s", err, ranErr, out)
	}
	var findings []struct{ ID, Severity, Finding string }
	if err := json.Unmarshal(b, &findings); err != nil {
		return nil, fmt.Errorf("testssl.sh's report: %w\n%s", err, out)
	}
	v := verdict{judge: "testssl"}
	for _, f := range findings {
		what := f.Severity + ": " + f.Finding
		switch {
		case !slices.Contains([]string{"MEDIUM", "HIGH", "CRITICAL", "WARN", "FATAL"}, f.Severity):
			v.say(f.ID, "")
			if f.Severity == "LOW" {
				v.notes = append(v.notes, f.ID+" "+what)
			}
		case ofOurCertificate[f.ID] != "":
			v.cases++
			v.excepted = append(v.excepted, fmt.Sprintf("%s %s (%s)", f.ID, what, ofOurCertificate[f.ID]))
		default:
			v.say(f.ID, what)
		}
	}
	if v.cases < 60 {
		v.say("all tests run", fmt.Sprintf("only %d findings:\n%s", v.cases, out[max(0, len(out)-600):]))
	}
	v.say("proxy lives", goneSays(p.Gone()))
	return []verdict{v}, nil
}
