package render

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Page gathers text for people.
type Page struct {
	text strings.Builder
	now  time.Time
	wide bool
}

// Line adds a line.
func (p *Page) Line(format string, args ...any) {
	p.text.WriteString(Clean(fmt.Sprintf(format, args...)))
	p.text.WriteByte('\n')
}

// Block adds text of several lines.
func (p *Page) Block(text string) {
	for line := range strings.Lines(text) {
		p.Line("%s", strings.TrimSuffix(line, "\n"))
	}
}

// Continued adds a command's arguments as a shell takes them for one line: an option and its value on each.
func (p *Page) Continued(arguments []string) {
	var lines []string
	for _, argument := range arguments {
		if last := len(lines) - 1; last >= 0 && !strings.HasPrefix(argument, "-") {
			lines[last] += " " + argument
			continue
		}
		lines = append(lines, argument)
	}
	p.Block(strings.Join(lines, " \\\n"))
}

// Gap adds an empty line.
func (p *Page) Gap() { p.text.WriteByte('\n') }

// fact adds an indented name and what is known of it; nothing when there is nothing.
func (p *Page) fact(name, value string) {
	if value == "" || value == none {
		return
	}
	p.Line("  %-22s%s", name, value)
}

// section adds a heading.
func (p *Page) section(heading string) {
	if p.text.Len() > 0 {
		p.Gap()
	}
	p.Line("%s", heading)
}

// table lines its columns up. A row's notes stand below it.
type table struct {
	rows  [][]string
	notes map[int][]string
}

func newTable(heading ...string) *table {
	return &table{rows: [][]string{heading}, notes: map[int][]string{}}
}

func (t *table) add(cells ...string) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		row[i] = Clean(cell)
		if row[i] == "" {
			row[i] = none
		}
	}
	t.rows = append(t.rows, row)
}

// note adds a line below the last row.
func (t *table) note(format string, args ...any) {
	last := len(t.rows) - 1
	t.notes[last] = append(t.notes[last], Clean(fmt.Sprintf(format, args...)))
}

// on writes the table to the page.
func (t *table) on(p *Page) {
	widths := make([]int, len(t.rows[0]))
	for _, row := range t.rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for i, row := range t.rows {
		p.text.WriteString(aligned(row, widths) + "\n")
		for _, note := range t.notes[i] {
			p.text.WriteString("  " + note + "\n")
		}
	}
}

func aligned(row []string, widths []int) string {
	var line strings.Builder
	for i, cell := range row {
		line.WriteString(cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
	}
	return strings.TrimRight(line.String(), " ")
}

// WriteTo writes the page.
func (p *Page) WriteTo(out io.Writer) (int64, error) {
	n, err := io.WriteString(out, p.text.String())
	return int64(n), err
}
