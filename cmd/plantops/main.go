// Command plantops is the sensor backend of a home, greenhouse or small farm in one program: an MQTT
// broker, the subscriber that stores what devices send, and the commands to look after both.
//
// This package is the only one that knows every other: it turns the configuration into options (wire.go, certs.go),
// starts and stops the parts in order (serve.go, lifecycle.go), and decides exit codes and what a person gets to read.
// What the running server tells and is told is in package control.
//
// What goes where: results on standard output, everything else on standard error with the prefix
// "plantops:". An error is one line per fact, lower case, without a full stop, followed by "hint:" lines.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
)

// Exit codes. Service managers must not restart on exitUsage and exitConfig: another try cannot help.
const (
	exitDone         = 0
	exitFailed       = 1 // port busy, second instance, read-only directory, damaged database
	exitUsage        = 2
	exitConfig       = 3 // also: wrong CA file, key readable by others, newer or foreign database
	exitUnreachable  = 4
	exitUnauthorized = 5
)

// Kinds of failure of a command line that have an exit code of their own, beside those of package control.
var (
	errUsage  = errors.New("wrong usage")
	errConfig = errors.New("bad configuration")
)

// oneSignal is the time within which two signals are one: timeout(1) and Ctrl-C in some shells signal the
// process and its group.
const oneSignal = 500 * time.Millisecond

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() {
		time.AfterFunc(oneSignal, stop) // from then on a signal has its ordinary effect: the second one quits at once
	})
	os.Exit(run(ctx, os.Args[1:], &app{
		stdin:   os.Stdin,
		stdout:  os.Stdout,
		stderr:  os.Stderr,
		environ: os.Environ(),
		now:     time.Now,
		build:   readBuild(),
	}))
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, a *app) int {
	root := newRoot(a)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) && cmd.Name() != "serve" { // serve sorts out itself what matters
		err = errors.New("interrupted")
	}
	report(a.stderr, err)
	return exitCode(err)
}

func exitCode(err error) int {
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errUsage), errors.Is(err, store.ErrInvalidID),
		errors.Is(err, store.ErrInvalidFilter), errors.Is(err, store.ErrInvalidPassword):
		return exitUsage
	case errors.Is(err, errConfig), errors.Is(err, certs.ErrInsecureKey),
		errors.Is(err, store.ErrNewerSchema), errors.Is(err, store.ErrForeign):
		return exitConfig
	case errors.Is(err, control.ErrUnreachable):
		return exitUnreachable
	case errors.Is(err, control.ErrUnauthorized):
		return exitUnauthorized
	default:
		return exitFailed
	}
}

// report writes err and its remedies for a person.
func report(w io.Writer, err error) {
	if err == nil {
		return
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "plantops: %s\n", strings.TrimSuffix(line, "\n"))
	}
	for _, hint := range control.Hints(err) {
		fmt.Fprintf(w, "plantops: hint: %s\n", hint)
	}
}

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
