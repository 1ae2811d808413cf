// Command plantops is the sensor backend of a home, greenhouse or small farm in one program: an MQTT
// broker, the subscriber that stores what devices send, and the commands to look after both.
//
// This package is the only one that knows every other: it turns the configuration into options (wire.go, trust.go),
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
	"strings"
	"syscall"
	"time"

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
