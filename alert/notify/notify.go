// Package notify brings messages to people: ntfy, Discord, Telegram, a webhook, e-mail, an MQTT topic. Sender takes what waits in the outbox
// to each channel, in order, and tries again until it is taken; a channel that does not answer holds up nobody else. Heartbeat calls an
// address while all is well, so that somebody notices when the box is gone.
//
// A message leaves the outbox after the channel has taken it. Where the program dies in between it is sent again, with the same id: ntfy,
// webhooks, e-mail and MQTT carry it. What judges, and what is told, is package alert's business.
package notify

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/plantops/plantops/alert"
)

// ErrRefused says that a channel will never take a message: what is wrong is in the message, as far as it says.
var ErrRefused = errors.New("refused")

// ErrNoChannel says that no channel has the name.
var ErrNoChannel = errors.New("no such channel")

// LaterError says that a channel wants to be left alone for a time.
type LaterError struct {
	After time.Duration
	Why   string
}

// Error says why, and for how long.
func (e *LaterError) Error() string { return fmt.Sprintf("%s; again after %s", e.Why, e.After) }

// Channel is a way to people. Send returns nil when the message is taken. No error shows a secret. It is used by one goroutine at a time.
type Channel interface {
	Send(ctx context.Context, e *Envelope) error
}

// Envelope is a message for one channel.
type Envelope struct {
	alert.Message
	Keys []Key `json:"keys,omitempty"` // of buttons
	Test bool  `json:"test,omitempty"`
}

// Key lets the one who has the message do something.
type Key struct {
	Action string `json:"action"` // Acknowledge or Snooze
	Text   string `json:"text"`
}

// What a button does.
const (
	Acknowledge = "acknowledge"
	Snooze      = "snooze"
)

// SnoozeFor is how long the button snoozes.
const SnoozeFor = 2 * time.Hour

func (e *Envelope) title() string {
	if e.Test {
		return "PlantOps: a test"
	}
	return e.Title()
}

func (e *Envelope) body(zone *time.Location) string {
	if e.Test {
		return "This channel works."
	}
	return e.Body(zone)
}

// ends reports whether all that the message says is that something is over.
func (e *Envelope) ends() bool {
	for i := range e.Notices {
		if e.Notices[i].What != alert.Ends {
			return false
		}
	}
	return len(e.Notices) > 0 && e.More == 0
}

// clean makes one line of a text, for headers.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
}
