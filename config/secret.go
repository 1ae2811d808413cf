package config

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "<redacted>"

// Secret is a text that never shows itself: not with any verb of fmt, not in
// JSON or YAML, not in a log. Reveal is the only way to the text.
type Secret string

// Reveal returns the text itself, for the one place that needs it.
func (s Secret) Reveal() string { return string(s) }

// String returns "<redacted>".
func (Secret) String() string { return redacted }

// Format writes "<redacted>" for every verb. String alone would not do: for a
// verb that does not fit, such as %d, fmt prints the bare text.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns "<redacted>"; JSON and YAML use it.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue returns "<redacted>".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
