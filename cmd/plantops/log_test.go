package main

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/config"
)

// People and programs look for these sentences.
func TestFixedSentencesStandWholeInEveryFormat(t *testing.T) {
	const sentence = "Opening ipv4 listen socket on port 1883."
	for name, c := range map[string]struct {
		format  string
		environ []string
		want    string
	}{
		"text":                {"text", nil, `^\d{4}-\d\d-\d\dT\S+ INF ` + sentence + " remote=x\n$"},
		"text in the journal": {"text", []string{"JOURNAL_STREAM=8:1"}, `^INF ` + sentence + " remote=x\n$"},
		"json":                {"json", nil, `^{"time":"[^"]+","level":"INFO","msg":"` + sentence + `","remote":"x"}` + "\n$"},
		"json in the journal": {"json", []string{"JOURNAL_STREAM=8:1"}, `^{"level":"INFO","msg":"` + sentence + `","remote":"x"}` + "\n$"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			log, err := newLogger(&out, config.Log{Level: "info", Format: c.format}, new(slog.LevelVar), c.environ)
			require.NoError(t, err)
			log.Debug("not shown")
			log.Info(sentence, "remote", "x")
			assert.Regexp(t, c.want, out.String())
		})
	}
}

func TestDurationsAreReadableInEveryFormat(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var out strings.Builder
		log, err := newLogger(&out, config.Log{Level: "info", Format: format}, new(slog.LevelVar), nil)
		require.NoError(t, err)
		log.Info("retry", "retry_in", 1830*time.Millisecond)
		assert.Contains(t, out.String(), "1.83s")
	}
}

func TestLevelChangesWhileRunning(t *testing.T) {
	var out strings.Builder
	var level slog.LevelVar
	log, err := newLogger(&out, config.Log{Level: "warn", Format: "text"}, &level, nil)
	require.NoError(t, err)
	log.Info("one")
	require.NoError(t, setLevel(&level, "debug"))
	log.Debug("two")
	assert.NotContains(t, out.String(), "one")
	assert.Contains(t, out.String(), "two")
	assert.Error(t, setLevel(&level, "loud"))
}

func TestColourIsForTerminalsThatWantIt(t *testing.T) {
	assert.True(t, noColor("NO_COLOR=1"))
	assert.True(t, noColor("TERM=dumb"))
	assert.False(t, noColor("NO_COLOR="))
	assert.False(t, noColor("TERM=xterm"))
	assert.False(t, isTerminal(new(strings.Builder)))
}
