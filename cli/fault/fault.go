package fault

import (
	"context"
	"errors"
	"fmt"
)

// Exit codes of every moire command.
const (
	OK          = 0 // done
	Failed      = 1 // a check failed, something differs, or the server said no
	Usage       = 2 // wrong flags, arguments or input
	Unreachable = 3 // the server does not answer
	Forbidden   = 4 // not allowed
	Timeout     = 5 // it took too long
)

// Fault is one error for people. Text says what, where and why; Fix is the
// command or the change that mends it, without which an error is not finished.
type Fault struct {
	Code  int
	Text  string
	Fix   string
	Cause error
}

// New makes a Fault whose Text is formatted like fmt.Sprintf.
func New(code int, fix, format string, args ...any) *Fault {
	return &Fault{Code: code, Fix: fix, Text: fmt.Sprintf(format, args...)}
}

// Usagef is a Fault with code Usage.
func Usagef(fix, format string, args ...any) *Fault { return New(Usage, fix, format, args...) }

// Error is Text and, on a line of its own, the fix.
func (f *Fault) Error() string {
	if f.Fix == "" {
		return f.Text
	}
	return f.Text + "\n  fix: " + f.Fix
}

// Unwrap is the cause.
func (f *Fault) Unwrap() error { return f.Cause }

// ExitCode is Code.
func (f *Fault) ExitCode() int { return f.Code }

// Exit ends the program with a code and says nothing more: what there is to
// say was already printed as data.
type Exit int

// Error names the code.
func (e Exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// ExitCode is the code.
func (e Exit) ExitCode() int { return int(e) }

// Silent says that nothing is to be printed.
func (Exit) Silent() bool { return true }

// Code is the exit code that err asks for: that of the first error in its tree
// with an ExitCode method, Timeout for a passed deadline, otherwise Failed.
func Code(err error) int {
	if err == nil {
		return OK
	}
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return Timeout
	}
	return Failed
}

// Silent says whether err has already been told to the user.
func Silent(err error) bool {
	var quiet interface{ Silent() bool }
	return errors.As(err, &quiet) && quiet.Silent()
}

// Worse is the code to end with after several errors: the first one's, as the
// later ones often follow from it.
func Worse(errs []error) int {
	for _, err := range errs {
		if code := Code(err); code != OK {
			return code
		}
	}
	return OK
}

// Parts splits an error into what happened and the fix, where it has one.
func Parts(err error) (text, fix string) {
	var f *Fault
	if errors.As(err, &f) {
		return f.Text, f.Fix
	}
	var fixed interface {
		Text() string
		Fix() string
	}
	if errors.As(err, &fixed) {
		return fixed.Text(), fixed.Fix()
	}
	return err.Error(), ""
}
