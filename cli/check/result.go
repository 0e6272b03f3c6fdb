package check

import "fmt"

// State of a Result.
type State string

// States.
const (
	OK      State = "ok"
	Warning State = "warning" // works, but not well
	Failed  State = "fail"
)

// Result answers one question.
type Result struct {
	// ID is stable, such as port-api.
	ID    string `json:"id"`
	State State  `json:"state"`
	// Cause says what was found.
	Cause string `json:"cause"`
	// Fix says what to do; empty when State is ok.
	Fix string `json:"fix,omitempty"`
}

func ok(id, format string, args ...any) Result {
	return Result{ID: id, State: OK, Cause: fmt.Sprintf(format, args...)}
}

func warn(id, fix, format string, args ...any) Result {
	return Result{ID: id, State: Warning, Fix: fix, Cause: fmt.Sprintf(format, args...)}
}

func fail(id, fix, format string, args ...any) Result {
	return Result{ID: id, State: Failed, Fix: fix, Cause: fmt.Sprintf(format, args...)}
}

// Bad says whether any Result failed; warnings do not count.
func Bad(results []Result) bool {
	for _, r := range results {
		if r.State == Failed {
			return true
		}
	}
	return false
}
