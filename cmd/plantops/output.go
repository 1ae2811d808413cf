package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

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
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	return tw.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// local is a time for people.
func local(m control.Moment) string {
	if m == 0 {
		return "-"
	}
	return m.Time().Format("2006-01-02 15:04:05")
}

// ago says how long before now a time was.
func ago(m control.Moment, now time.Time) string {
	if m == 0 {
		return "never"
	}
	if ahead := m.Time().Sub(now); ahead > clockSlack {
		return span(ahead) + " ahead: a wrong clock"
	}
	return span(now.Sub(m.Time())) + " ago"
}

// clockSlack is how far two clocks of one machine may be apart: a command looks at its own, after the server has looked.
const clockSlack = time.Minute

// span is a duration in its largest sensible unit.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}
