package v1alpha1

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// treatment checks what of a BackendPolicy is about requests.
func (j *judge) treatment(s *BackendPolicySpec) {
	j.retry("spec.retry", s.Retry)
	if h := s.Hedge; h != nil {
		j.duration("spec.hedge.delay", h.Delay, true)
		if h.Most != 0 {
			j.number("spec.hedge.most", h.Most, 2, 10)
		}
	}
	if t := s.Timeouts; t != nil {
		j.duration("spec.timeouts.request", t.Request, false)
		j.duration("spec.timeouts.backendRequest", t.BackendRequest, false)
		if r := t.Request.Time(); r > 0 && t.BackendRequest.Time() > r {
			j.warn(CodeDuration, "spec.timeouts.backendRequest", "make it at most the request timeout", "one try would be given longer than the whole request")
		}
	}
	if j.count("spec.rateLimits", len(s.RateLimits), 8) {
		for i := range s.RateLimits {
			l, field := &s.RateLimits[i], fmt.Sprintf("spec.rateLimits[%d]", i)
			j.number(field+".requests", l.Requests, 1, 1_000_000_000)
			j.duration(field+".per", l.Per, true)
			if l.Per != "" && durationText.MatchString(string(l.Per)) && l.Per.Time() == 0 {
				j.warn(CodeDuration, field+".per", "write for example 1s or 1m", "the time is 0, so nothing is limited")
			}
			j.positive(field+".burst", l.Burst, 1_000_000_000)
			j.length(field+".by", l.By, 128)
			if l.By != "" && !rateLimitBy.MatchString(l.By) {
				j.add(CodeChoice, field+".by", "write address, identity or header:NAME", "%q is no part of a request by which it could be limited", l.By)
			}
		}
	}
	if j.count("spec.hash", len(s.Hash), 8) {
		for i := range s.Hash {
			j.hashOn(fmt.Sprintf("spec.hash[%d]", i), &s.Hash[i])
		}
	}
	if len(s.Subset) > 16 {
		j.add(CodeTooMuch, "spec.subset", "use at most 16", "it has %d entries", len(s.Subset))
	}
}

func (j *judge) retry(field string, r *Retry) {
	if r == nil {
		return
	}
	j.codes(field+".codes", r.Codes, 64, 400, 599)
	j.codes(field+".grpc", r.GRPC, 16, 1, 16)
	j.positive(field+".attempts", r.Attempts, 10)
	j.duration(field+".backoff", r.Backoff, false)
	if j.count(field+".methods", len(r.Methods), 16) {
		j.set(field+".methods", r.Methods)
		for i, m := range r.Methods {
			at := fmt.Sprintf("%s.methods[%d]", field, i)
			j.length(at, m, 32)
			if !upperWord.MatchString(m) {
				j.add(CodeChoice, at, "write for example POST", "%q is not a method", m)
			}
		}
	}
	j.positive(field+".bodyBytes", r.BodyBytes, 16<<20)
}

func (j *judge) hashOn(field string, h *HashOn) {
	set := 0
	for _, s := range []string{h.Header, h.Cookie, h.Query} {
		if s != "" {
			set++
		}
	}
	if h.Address {
		set++
	}
	if set != 1 {
		j.add(CodeHash, field, "write exactly one of header, cookie, query and address", "%d of its parts are set", set)
	}
	for name, s := range map[string]string{"header": h.Header, "cookie": h.Cookie} {
		if s != "" && !headerText.MatchString(s) {
			j.add(CodeHeader, field+"."+name, "write a name such as x-user", "%q is not the name of a %s", s, name)
		}
	}
	j.length(field+".header", h.Header, 256)
	j.length(field+".cookie", h.Cookie, 256)
	j.length(field+".query", h.Query, 256)
}

// ValidateFaultPolicy says what is wrong with a FaultPolicy.
func ValidateFaultPolicy(p *FaultPolicy) []Problem {
	j := newJudge("FaultPolicy", p.Namespace, p.Name, true)
	s := &p.Spec
	j.policyTargets(s.TargetRefs)
	if s.Delay == nil && s.Abort == nil {
		j.add(CodeMissing, "spec", "write delay, abort or both", "the policy says nothing")
	}
	if d := s.Delay; d != nil {
		j.duration("spec.delay.duration", d.Duration, true)
		j.share("spec.delay", d.Share)
	}
	if a := s.Abort; a != nil {
		if a.Status == 0 && a.GRPCStatus == 0 {
			j.add(CodeMissing, "spec.abort", "write status, grpcStatus or both", "the abort has no status")
		}
		if a.Status != 0 {
			j.number("spec.abort.status", a.Status, 200, 599)
		}
		j.positive("spec.abort.grpcStatus", a.GRPCStatus, 16)
		j.share("spec.abort", a.Share)
	}
	if !j.count("spec.headers", len(s.Headers), 16) {
		return j.problems
	}
	for i := range s.Headers {
		h, field := &s.Headers[i], fmt.Sprintf("spec.headers[%d]", i)
		if h.Type != "" {
			j.choice(field+".type", h.Type, "Exact", "RegularExpression")
		}
		switch {
		case h.Name == "":
			j.add(CodeMissing, field+".name", "write the name of a header", "the name is missing")
		case !headerText.MatchString(h.Name):
			j.add(CodeHeader, field+".name", "write a name such as x-user", "%q is not the name of a header", h.Name)
		case slices.IndexFunc(s.Headers, func(o FaultHeader) bool { return o.Name == h.Name }) < i:
			j.add(CodeRepeated, field+".name", "match by a regular expression", "the header %q is there twice", h.Name)
		}
		j.length(field+".name", h.Name, 256)
		if h.Value == "" {
			j.add(CodeMissing, field+".value", "write the value", "the value is missing")
		}
		j.length(field+".value", h.Value, 4096)
		if h.Type == "RegularExpression" {
			if _, err := regexp.Compile("^(?:" + h.Value + ")$"); err != nil {
				j.warn(CodeHeader, field+".value", "correct it; the syntax is that of RE2", "%s, so no request is meant", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
			}
		}
	}
	return j.problems
}

// share checks which part of the requests is meant.
func (j *judge) share(field string, s Share) {
	if (s.Percent != 0) == (s.PerMille != 0) {
		j.add(CodeShare, field, "write percent or perMille", "percent and perMille are both there, or none of them")
	}
	j.positive(field+".percent", s.Percent, 100)
	j.positive(field+".perMille", s.PerMille, 1000)
}
