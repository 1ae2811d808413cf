package listing

import (
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// RowWriter prints the rows of any query, as they come: Begin is called first, with the names of the columns, and End last. A value
// is int64, float64, string, []byte or nil.
type RowWriter interface {
	Begin(columns []string) error
	Write(values []any) error
	End() error
}

// NewRowWriter returns a writer of a format: csv, json or, with any other word, a table for people.
func NewRowWriter(format string, w io.Writer) RowWriter {
	switch format {
	case "csv":
		return &csvRows{w: csv.NewWriter(w)}
	case "json":
		return &jsonRows{w: w}
	default:
		return &tableRows{w: w}
	}
}

// text is a value as SQLite writes it, but for null.
func text(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return Number(v)
	case []byte:
		return "x'" + hex.EncodeToString(v) + "'"
	}
	return fmt.Sprint(value)
}

type csvRows struct {
	w     *csv.Writer
	cells []string
}

func (c *csvRows) Begin(columns []string) error { return c.w.Write(columns) }

func (c *csvRows) Write(values []any) error {
	c.cells = c.cells[:0]
	for _, v := range values {
		c.cells = append(c.cells, text(v))
	}
	return c.w.Write(c.cells)
}

func (c *csvRows) End() error {
	c.w.Flush()
	return c.w.Error()
}

// jsonRows writes one array with an object a line, whose keys are in the order of the columns.
type jsonRows struct {
	w    io.Writer
	keys []string // with what stands before the value
	any  bool
	line []byte
}

func (j *jsonRows) Begin(columns []string) error {
	for i, c := range columns {
		name, err := json.Marshal(c)
		if err != nil {
			return err
		}
		before := ","
		if i == 0 {
			before = "{"
		}
		j.keys = append(j.keys, before+string(name)+":")
	}
	_, err := io.WriteString(j.w, "[")
	return err
}

func (j *jsonRows) Write(values []any) error {
	j.line = append(j.line[:0], ",\n "...)
	if !j.any {
		j.line, j.any = j.line[1:], true
	}
	for i, v := range values {
		switch x := v.(type) {
		case float64:
			v = finite(x)
		case []byte:
			v = text(x)
		}
		value, err := json.Marshal(v)
		if err != nil {
			return err
		}
		j.line = append(append(j.line, j.keys[i]...), value...)
	}
	_, err := j.w.Write(append(j.line, '}'))
	return err
}

func (j *jsonRows) End() error {
	ending := "]\n"
	if j.any {
		ending = "\n]\n"
	}
	_, err := io.WriteString(j.w, ending)
	return err
}

// tableRows takes the widths of its columns from the first rows. Longer values that come later widen them from there on.
type tableRows struct {
	w      io.Writer
	widths []int
	first  [][]string // not written yet, the heading too
	begun  bool
}

func (t *tableRows) Begin(columns []string) error {
	t.widths = make([]int, len(columns))
	heading := make([]string, len(columns))
	for i, c := range columns {
		heading[i] = strings.ToUpper(c)
	}
	return t.row(heading)
}

func (t *tableRows) Write(values []any) error {
	cells := make([]string, len(values))
	for i, v := range values {
		if cells[i] = text(v); v == nil {
			cells[i] = "NULL"
		}
	}
	return t.row(cells)
}

func (t *tableRows) row(cells []string) error {
	for i, c := range cells {
		cells[i] = strings.Map(func(r rune) rune { // what a terminal obeys rather than shows
			if unicode.IsPrint(r) {
				return r
			}
			return unicode.ReplacementChar
		}, c)
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cells[i]))
	}
	if t.begun {
		return t.line(cells)
	}
	if t.first = append(t.first, cells); len(t.first) <= widthsFrom {
		return nil
	}
	return t.End()
}

func (t *tableRows) line(cells []string) error {
	var b strings.Builder
	for i, c := range cells[:len(cells)-1] {
		fmt.Fprintf(&b, "%-*s  ", t.widths[i], c)
	}
	_, err := fmt.Fprintf(t.w, "%s%s\n", b.String(), cells[len(cells)-1])
	return err
}

// End writes what waits.
func (t *tableRows) End() error {
	t.begun = true
	waiting := t.first
	t.first = nil
	for _, cells := range waiting {
		if err := t.line(cells); err != nil {
			return err
		}
	}
	return nil
}
