package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
)

// Set by the linker: -X main.version=1.2.3 -X main.commit=abc -X main.buildDate=2026-01-07T12:00:00Z.
var (
	version   string
	commit    string
	buildDate string
)

// build says what this program is.
type build struct {
	Version  string    `json:"version"`
	Commit   string    `json:"commit"`
	Date     time.Time `json:"build_date"` // UTC; zero when not known. No correct clock shows less
	Go       string    `json:"go"`
	Platform string    `json:"platform"`
}

// floor is a time that has certainly passed: it was when this line was written. It stands in for the build date of a program that was
// built without one, and a clock that shows less is not set.
var floor = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// earliest is the time before which no clock is believed.
func (b build) earliest() time.Time {
	if b.Date.Before(floor) {
		return floor
	}
	return b.Date
}

// readBuild takes what the linker was told, and what the Go tool recorded for the rest.
func readBuild() build {
	b := build{Version: version, Commit: commit, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	date := buildDate
	if info, ok := debug.ReadBuildInfo(); ok {
		if b.Version == "" {
			b.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision" && b.Commit == "":
				b.Commit = s.Value
			case s.Key == "vcs.time" && date == "":
				date = s.Value
			}
		}
	}
	if b.Version == "" {
		b.Version = "(devel)"
	}
	if t, err := time.Parse(time.RFC3339, date); err == nil {
		b.Date = t.UTC()
	}
	return b
}

func newVersion(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print version, commit, build date and platform",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return printJSON(a.stdout, a.build)
			}
			date := "unknown"
			if !a.build.Date.IsZero() {
				date = a.build.Date.Format(time.RFC3339)
			}
			_, err := fmt.Fprintf(a.stdout, "plantops %s\ncommit    %s\nbuilt     %s\ngo        %s\nplatform  %s\n",
				a.build.Version, orDash(a.build.Commit), date, a.build.Go, a.build.Platform)
			return err
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}
