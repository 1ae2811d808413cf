package control

import "errors"

// Kinds of failure that callers branch on. They are wrapped with KindOf.
var (
	// ErrUnreachable: no server answers.
	ErrUnreachable = errors.New("unreachable")
	// ErrUnauthorized: this user may not do what the server's may.
	ErrUnauthorized = errors.New("not authorised")
	// ErrNoBroker: there is no broker in the server that could be asked.
	ErrNoBroker = errors.New("the broker is another program")
	// ErrNoWeb: no web page is served that could be opened.
	ErrNoWeb = errors.New("the web page is not served")
)

// kindError is err with a kind; its text is that of err alone.
type kindError struct {
	error
	kind error
}

func (e kindError) Unwrap() []error { return []error{e.error, e.kind} }

// KindOf marks err as one of a kind, for errors.Is: one of the kinds above or one of the caller's. The text stays that of
// err; nil stays nil.
func KindOf(kind, err error) error {
	if err == nil {
		return nil
	}
	return kindError{err, kind}
}

// Unauthorized marks err as ErrUnauthorized, with the remedy.
func Unauthorized(err error) error {
	return KindOf(ErrUnauthorized, WithHint(err,
		"run the command as the user that the server runs as, for instance: sudo -u plantops plantops status"))
}

// hintError is err with what a person can do about it.
type hintError struct {
	error
	hints []string
}

func (e hintError) Unwrap() error { return e.error }

// WithHint adds remedies to err, one sentence each, without changing its text; nil stays nil.
func WithHint(err error, hints ...string) error {
	if err == nil {
		return nil
	}
	return hintError{err, hints}
}
