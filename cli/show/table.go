package show

import (
	"bufio"
	"io"
	"strings"
	"unicode/utf8"
)

// The measures of kubectl's tables, in characters.
const (
	minWidth = 6
	padding  = 3
)

// Grid is a table of text. Rows may be shorter than Header, not longer.
type Grid struct {
	Header []string
	Rows   [][]string
}

// Write aligns the columns as kubectl does. With header false only the rows
// are written. A nil paint leaves every cell as it is.
func (g *Grid) Write(w io.Writer, header bool, paint func(column, cell string) string) error {
	return g.WriteAt(w, g.Widths(header), header, paint)
}

// WriteAt is Write with widths that were measured before; wider cells push the
// rest of their line.
func (g *Grid) WriteAt(w io.Writer, widths []int, header bool, paint func(column, cell string) string) error {
	out := bufio.NewWriterSize(w, 1<<16)
	if header {
		writeRow(out, g.Header, widths, func(_ int, cell string) string { return cell })
	}
	for _, row := range g.Rows {
		writeRow(out, row, widths, func(i int, cell string) string {
			if paint == nil {
				return cell
			}
			return paint(g.Header[i], cell)
		})
	}
	return out.Flush()
}

// Widths are the column widths that Write uses, padding included.
func (g *Grid) Widths(header bool) []int {
	widths := make([]int, len(g.Header))
	measure := func(row []string) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell)+padding, minWidth)
		}
	}
	if header {
		measure(g.Header)
	}
	for _, row := range g.Rows {
		measure(row)
	}
	return widths
}

const blanks = "                                                                "

func writeRow(out *bufio.Writer, row []string, widths []int, paint func(int, string) string) {
	for i, cell := range row {
		out.WriteString(paint(i, cell))
		if i == len(row)-1 {
			break
		}
		for n := max(widths[i]-utf8.RuneCountInString(cell), padding); n > 0; n -= len(blanks) {
			out.WriteString(blanks[:min(n, len(blanks))])
		}
	}
	out.WriteByte('\n')
}

// oneLine keeps a cell on one line, as kubectl does: what follows a line break
// is cut off and marked. Control characters could command the terminal, so
// they are shown escaped.
func oneLine(cell string) string {
	if i := strings.IndexAny(cell, "\f\n\r"); i >= 0 {
		cell = cell[:i] + "..."
	}
	return Plain(cell)
}

// Plain replaces control characters, which could command a terminal, by ^X.
func Plain(text string) string {
	if strings.IndexFunc(text, control) < 0 {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case !control(r):
			b.WriteRune(r)
		case r < 0x20:
			b.WriteByte('^')
			b.WriteRune(r + '@')
		default:
			b.WriteString("^?")
		}
	}
	return b.String()
}

func control(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }
