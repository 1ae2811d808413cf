package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/plantops/plantops/certs"
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

// Kinds of failure that have an exit code of their own. They are wrapped with kindOf.
var (
	errUsage        = errors.New("wrong usage")
	errConfig       = errors.New("bad configuration")
	errUnreachable  = errors.New("unreachable")
	errUnauthorized = errors.New("not authorised")
)

// kindError is err with one of the kinds above; its text is that of err alone.
type kindError struct {
	error
	kind error
}

func (e kindError) Unwrap() []error { return []error{e.error, e.kind} }

// kindOf marks err as one of the kinds above; nil stays nil.
func kindOf(kind, err error) error {
	if err == nil {
		return nil
	}
	return kindError{err, kind}
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
	case errors.Is(err, errUnreachable):
		return exitUnreachable
	case errors.Is(err, errUnauthorized):
		return exitUnauthorized
	default:
		return exitFailed
	}
}

// hintError is err with what a person can do about it.
type hintError struct {
	error
	hints []string
}

func (e hintError) Unwrap() error { return e.error }

// withHint adds remedies to err; nil stays nil.
func withHint(err error, hints ...string) error {
	if err == nil {
		return nil
	}
	return hintError{err, hints}
}

// report writes err and its remedies for a person.
func report(w io.Writer, err error) {
	if err == nil {
		return
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "plantops: %s\n", strings.TrimSuffix(line, "\n"))
	}
	for _, hint := range hints(err) {
		fmt.Fprintf(w, "plantops: hint: %s\n", hint)
	}
}
