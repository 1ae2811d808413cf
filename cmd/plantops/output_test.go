package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
)

func TestParseInstant(t *testing.T) {
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"24h":                       now.Add(-24 * time.Hour),
		"7d":                        now.AddDate(0, 0, -7),
		"90m":                       now.Add(-90 * time.Minute),
		"2026-03-01T12:00:00Z":      time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		"2026-03-01T12:00:00+02:00": time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC),
		"2026-03-01":                time.Date(2026, 3, 1, 0, 0, 0, 0, time.Local),
	} {
		got, err := parseInstant("--since", text, now, time.Local)
		require.NoError(t, err, text)
		assert.Equal(t, want.UnixMilli(), got, text)
	}
	for _, text := range []string{"yesterday", "-1h", "5", "1.5d", "2026-13-01"} {
		_, err := parseInstant("--since", text, now, time.Local)
		assert.ErrorContains(t, err, "--since "+text, text)
	}
}

func TestSpanAndSizeUseTheLargestSensibleUnit(t *testing.T) {
	assert.Equal(t, []string{"59s", "2m", "119m", "3h", "3d"}, []string{control.Span(59 * time.Second), control.Span(2 * time.Minute),
		control.Span(119 * time.Minute), control.Span(3 * time.Hour), control.Span(80 * time.Hour)})
	assert.Equal(t, []string{"1023 B", "1.0 KiB", "1.5 MiB", "2048.0 TiB"},
		[]string{control.Bytes(1023).String(), control.Bytes(1024).String(), control.Bytes(3 << 19).String(), control.Bytes(2 << 50).String()})
}

func TestTablesShowWhatATerminalWouldObey(t *testing.T) {
	var out strings.Builder
	require.NoError(t, table(&out, [][]string{{"a\tb", "\x1b[31mred\nnext"}, {"\u202eabc", "grün ✓"}}))
	assert.Equal(t, "a�b   �[31mred�next\n�abc  grün ✓\n", out.String())
}

func TestOneIsNoPlural(t *testing.T) {
	assert.Equal(t, []string{"0 messages", "1 message", "2 messages"}, []string{count(0, "message"), count(1, "message"), count(int64(2), "message")})
	u := control.UnreadTopic{Topic: "devices/bed-1/x", Count: 1, Last: 1}
	now := time.UnixMilli(3001)
	assert.Equal(t, "devices/bed-1/x, 1 message, last 3s ago", unreadText(u, now))
	u.Meant, u.Count = "devices/bed-1/telemetry", 2
	assert.Equal(t, "devices/bed-1/x, did it mean devices/bed-1/telemetry? 2 messages, last 3s ago", unreadText(u, now))
}

func TestExitCodesAndHints(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		code int
		hint string
	}{
		"nothing wrong":        {nil, 0, ""},
		"anything else":        {errors.New("oops"), 1, ""},
		"damaged database":     {fmt.Errorf("open: %w", store.ErrDamaged), 1, "restore a backup"},
		"second instance":      {&control.LockedError{Dir: "/data", PID: 17}, 1, "ps -p 17"},
		"wrong usage":          {control.KindOf(errUsage, errors.New("no")), 2, ""},
		"bad configuration":    {control.KindOf(errConfig, errors.New("no")), 3, ""},
		"key open to others":   {fmt.Errorf("open: %w", certs.ErrInsecureKey), 3, ""},
		"newer database":       {fmt.Errorf("open: %w", store.ErrNewerSchema), 3, "newer version"},
		"foreign database":     {errors.Join(fmt.Errorf("open: %w", store.ErrForeign), errors.New("and more")), 3, "store.path"},
		"nobody there":         {control.KindOf(control.ErrUnreachable, errors.New("no")), 4, ""},
		"not allowed":          {control.KindOf(control.ErrUnauthorized, errors.New("no")), 5, ""},
		"a hint on its way up": {fmt.Errorf("outer: %w", control.KindOf(errConfig, control.WithHint(errors.New("no"), "do this"))), 3, "do this"},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.code, exitCode(c.err))
			if c.hint == "" {
				assert.Empty(t, control.Hints(c.err))
			} else {
				assert.Contains(t, strings.Join(control.Hints(c.err), "\n"), c.hint)
			}
		})
	}
}

func TestEveryLineOfAnErrorHasThePrefix(t *testing.T) {
	var out strings.Builder
	report(&out, control.WithHint(errors.Join(errors.New("one"), errors.New("two")), "try three"))
	assert.Equal(t, "plantops: one\nplantops: two\nplantops: hint: try three\n", out.String())
}
