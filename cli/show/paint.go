package show

import (
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Paint colours cells; the zero value colours nothing.
type Paint struct{ On bool }

// PaintFor is on when w is a terminal that wants colour: NO_COLOR is not set
// and TERM is not dumb.
func PaintFor(w io.Writer, getenv func(string) string) Paint {
	return Paint{On: IsTerminal(w) && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"}
}

// IsTerminal says whether w is a terminal.
func IsTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	off    = "\x1b[0m"
)

// Cell colours words that say how something is.
func (p Paint) Cell(_, cell string) string {
	if !p.On {
		return cell
	}
	switch strings.ToLower(cell) {
	case "ready", "running", "true", "allow", "ok", "accept":
		return green + cell + off
	case "failing", "failed", "false", "deny", "fail":
		return red + cell + off
	case "stale", "updating", "pending", "warning", "pass":
		return yellow + cell + off
	}
	return cell
}

// Diff colours one line of a unified diff.
func (p Paint) Diff(line string) string {
	switch {
	case !p.On || line == "":
		return line
	case line[0] == '+':
		return green + line + off
	case line[0] == '-':
		return red + line + off
	}
	return line
}
