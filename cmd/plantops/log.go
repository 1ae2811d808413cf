package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/lmittmann/tint"
	"golang.org/x/term"

	"github.com/plantops/plantops/config"
)

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
