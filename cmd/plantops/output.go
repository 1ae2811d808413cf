package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/plantops/plantops/cmd/plantops/listing"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
)

func addJSONFlag(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print JSON")
}

// printJSON writes v for programs, indented so that people can read it too.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// table writes aligned columns; the first row is the heading.
func table(w io.Writer, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(tw, "\t")
			}
			fmt.Fprint(tw, visible(cell))
		}
		fmt.Fprintln(tw)
	}
	return tw.Flush()
}

// visible puts a mark in place of what a terminal obeys rather than shows: a topic or a field can hold it.
func visible(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

// count is a number of things for people: "1 message", "2 messages".
func count[N int | int64](n N, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// statusWidth is what a terminal has at least.
const statusWidth = 80

// foldRows breaks the second column of rows so that a table of them fits into a terminal.
func foldRows(rows [][]string) [][]string {
	first := 0
	for _, row := range rows {
		first = max(first, utf8.RuneCountInString(row[0]))
	}
	var folded [][]string
	for _, row := range rows {
		for i, line := range fold(row[1], statusWidth-first-2) {
			if i == 0 {
				folded = append(folded, []string{row[0], line})
			} else {
				folded = append(folded, []string{"", line})
			}
		}
	}
	return folded
}

// wrap breaks text between words into lines of at most width runes. A word that is longer, such as a path, is a line of its own.
func wrap(text string, width int) []string {
	lines := []string{""}
	for _, word := range strings.Fields(text) {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = word
		case utf8.RuneCountInString(*last)+1+utf8.RuneCountInString(word) <= width:
			*last += " " + word
		default:
			lines = append(lines, word)
		}
	}
	return lines
}

// fold is wrap that breaks long words too.
func fold(text string, width int) []string {
	var lines []string
	for _, line := range wrap(text, width) {
		runes := []rune(line)
		for ; len(runes) > width; runes = runes[width:] {
			lines = append(lines, string(runes[:width]))
		}
		lines = append(lines, string(runes))
	}
	return lines
}

// clip shortens text to n runes, and shows that it did.
func clip(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n-1]) + "…"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// local is a time for people.
func local(m control.Moment) string { return listing.Local(m) }

// ago says how long before now a time was.
func ago(m control.Moment, now time.Time) string {
	if m == 0 {
		return "never"
	}
	if ahead := m.Time().Sub(now); ahead > clockSlack {
		return control.Span(ahead) + " ahead: a wrong clock"
	}
	return control.Span(now.Sub(m.Time())) + " ago"
}

// clockSlack is how far two clocks of one machine may be apart: a command looks at its own, after the server has looked.
const clockSlack = time.Minute

// newLogger returns the log of the server. level can be changed while it runs.
//
// Every format keeps the message whole and apart from the attributes, so that a person or a program
// can look for the fixed sentences, for instance "Opening ipv4 listen socket on port 1883.".
func newLogger(w io.Writer, o config.Log, level *slog.LevelVar, environ []string) (*slog.Logger, error) {
	if err := setLevel(level, o.Level); err != nil {
		return nil, err
	}
	// The journal stamps each line itself.
	timeless := slices.ContainsFunc(environ, func(v string) bool { return strings.HasPrefix(v, "JOURNAL_STREAM=") })
	withoutTime := func(groups []string, a slog.Attr) slog.Attr {
		if timeless && len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	if o.Format == "json" {
		replace := func(groups []string, a slog.Attr) slog.Attr {
			if a.Value.Kind() == slog.KindDuration {
				a.Value = slog.StringValue(a.Value.Duration().String()) // as in text; slog would give bare nanoseconds
			}
			return withoutTime(groups, a)
		}
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: replace})), nil
	}
	return slog.New(tint.NewTextHandler(w, &tint.Options{
		Level:       level,
		ReplaceAttr: withoutTime,
		TimeFormat:  "2006-01-02T15:04:05.000Z07:00",
		NoColor:     !isTerminal(w) || slices.ContainsFunc(environ, noColor),
	})), nil
}

func setLevel(level *slog.LevelVar, name string) error {
	var l slog.Level
	if err := l.UnmarshalText([]byte(name)); err != nil {
		return fmt.Errorf("log.level: %w", err)
	}
	level.Set(l)
	return nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// noColor reports whether an environment variable asks for no colour.
func noColor(variable string) bool {
	name, value, _ := strings.Cut(variable, "=")
	return name == "NO_COLOR" && value != "" || name == "TERM" && value == "dumb"
}
