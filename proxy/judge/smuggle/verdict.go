package smuggle

import (
	"fmt"
	"regexp"
	"strings"
)

// marks are how Range marks requests.
var marks = regexp.MustCompile(fmt.Sprintf(`m\d{%d}`, MarkSize-1))

// outOfStep compares what the proxy forwarded with what the back end saw and
// with what the client was answered.
func outOfStep(got answers, passed Passed, stamp, id string) string {
	for _, v := range passed.Views {
		// A back end that refuses a head may not have read the stamp; that it gave
		// no more answers than it should is seen below.
		refused := v.Answered >= 400 && v.Answered != 404
		if v.Stamp != stamp && !(refused && v.Stamp == "") {
			return fmt.Sprintf("the back end saw %s %q (stamp %q), which the proxy did not forward", v.Method, v.Target, v.Stamp)
		}
	}
	if passed.Answers > passed.Forwarded {
		return fmt.Sprintf("the back end gave %d answers to %d requests", passed.Answers, passed.Forwarded)
	}
	if strings.HasPrefix(got.garbage, "the marked request") {
		return got.garbage
	}
	for _, v := range got.views {
		if m := marks.FindString(v.Target); m != "" && m != id {
			return fmt.Sprintf("the client was answered about %q, which is not its own", v.Target)
		}
	}
	if n := len(got.views); n > passed.Forwarded {
		return fmt.Sprintf("the client had %d answers of the back end to %d forwarded requests", n, passed.Forwarded)
	}
	return ""
}

// decidedOnOther says where a request went by another host or path than the
// back end reads in it: path is what it reads. Routes are named after what they
// match: admin (a.test, /admin), a (a.test) and b (b.test).
func decidedOnOther(views []View, stamp string, path func(View) string) string {
	for _, v := range views {
		if v.Stamp != stamp {
			continue // not routed at all
		}
		host := strings.ToLower(v.Host)
		host, _, _ = strings.Cut(host, ":")
		host = strings.TrimSuffix(host, ".")
		if host == "b.test" != (v.Route == "b") {
			return fmt.Sprintf("routed as %q, but the back end reads host %q", v.Route, v.Host)
		}
		if p := path(v); host == "a.test" && isAdmin(p) != (v.Route == "admin") {
			return fmt.Sprintf("routed as %q, but the back end reads path %q in %q", v.Route, p, v.Target)
		}
	}
	return ""
}

// asReceived is the path as the back end received it.
func asReceived(v View) string {
	v.Target, _, _ = strings.Cut(v.Target, "?")
	if scheme, rest, absolute := strings.Cut(v.Target, "://"); absolute && !strings.Contains(scheme, "/") {
		_, path, _ := strings.Cut(rest, "/")
		return "/" + path
	}
	return v.Target
}

// asUsed is the path as the back end would use it: decoded, without dots, as it
// sees fit.
func asUsed(v View) string { return v.Norm }

func isAdmin(path string) bool {
	rest, ok := strings.CutPrefix(path, "/admin")
	return ok && (rest == "" || rest[0] == '/')
}

// inBody: what is wrong with the Case comes after its head, which may have been
// forwarded by then.
func (c *Case) inBody() bool {
	return strings.HasPrefix(c.Name, "chunk-") || strings.HasPrefix(c.Name, "trailer/") || strings.HasPrefix(c.Name, "h2-body/")
}

// unlike says what a strict proxy had done otherwise.
func unlike(c Case, got answers, passed Passed) string {
	forwarded := passed.Forwarded
	if got.answered {
		forwarded-- // the marked request behind the Case
	}
	first := 0
	if len(got.status) > 0 {
		first = got.status[0]
	}
	switch c.Want {
	case Reject:
		switch {
		case forwarded > 0 && !c.inBody():
			return fmt.Sprintf("forwarded, answered %d", first)
		case first != 0 && first < 400:
			return fmt.Sprintf("answered %d", first)
		case !got.closed && !got.refused && first == 0 && got.garbage == "":
			return "left open without an answer"
		case !got.closed && !got.refused && got.garbage == "":
			return fmt.Sprintf("answered %d, but left open", first)
		}
	case Forward:
		if forwarded == 0 {
			return fmt.Sprintf("not forwarded, answered %d", first)
		}
		if first == 0 {
			return "forwarded, but not answered"
		}
	}
	return ""
}
