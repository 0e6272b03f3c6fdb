package fault

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestCode(t *testing.T) {
	for _, c := range []struct {
		err    error
		code   int
		silent bool
	}{
		{nil, OK, false},
		{errors.New("x"), Failed, false},
		{Usagef("f", "x"), Usage, false},
		{fmt.Errorf("a: %w", New(Forbidden, "", "x")), Forbidden, false},
		{errors.Join(errors.New("x"), New(Timeout, "", "y")), Timeout, false},
		{fmt.Errorf("a: %w", context.DeadlineExceeded), Timeout, false},
		{Exit(7), 7, true},
		{fmt.Errorf("a: %w", Exit(3)), 3, true},
	} {
		if Code(c.err) != c.code || Silent(c.err) != c.silent {
			t.Errorf("%v: code %d, silent %v", c.err, Code(c.err), Silent(c.err))
		}
	}
	if Worse(nil) != OK || Worse([]error{Usagef("", "x"), errors.New("y")}) != Usage {
		t.Error("Worse")
	}
}

func TestText(t *testing.T) {
	f := Usagef("do %s", "a %s", "b")
	if f.Error() != "a b\n  fix: do %s" {
		t.Errorf("%q", f.Error())
	}
	if text, fix := Parts(fmt.Errorf("w: %w", f)); text != "a b" || fix != "do %s" {
		t.Error(text, fix)
	}
	if text, fix := Parts(errors.New("x")); text != "x" || fix != "" {
		t.Error(text, fix)
	}
}
