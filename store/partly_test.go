package store

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/aside"
)

func TestABatchThatIsIsolatedHalfwayCountsNoMessageTwice(t *testing.T) {
	s := openTest(t, Options{})
	execute(t, s, `
		CREATE TRIGGER reading_poison BEFORE INSERT ON skipped WHEN NEW.first > 1 BEGIN SELECT raise(ABORT, 'no'); END;
		CREATE TRIGGER entry_poison BEFORE INSERT ON quarantine BEGIN SELECT raise(ABORT, 'no'); END`)
	require.NoError(t, os.Mkdir(s.path+aside.Suffix, 0o700), "so that the side file cannot be written")
	noTime := telemetry("bed-1", 1, Value{"temperature", 1})
	noTime.TimeSource = FromArrival
	batch := []Message{noTime, telemetry("bed-1", 1, Value{"humidity", 2}), telemetry("bed-1", 5, Value{"temperature", 3})}
	batch[2].Skipped = []Skipped{{Field: "f"}}

	outcomes, err := s.Append(t.Context(), batch, nil)
	require.ErrorIs(t, err, ErrPartly)
	require.NotEmpty(t, outcomes)
	require.NoError(t, os.Remove(s.path+aside.Suffix))
	outcomes, err = s.Append(t.Context(), batch[len(outcomes):], outcomes)
	require.NoError(t, err)
	assert.Equal(t, []Outcome{Stored, Stored, Quarantined}, outcomes)
	assert.Equal(t, Counts{Stored: 2, Quarantined: 1}, totals(t, s))
	assert.EqualValues(t, 1, countRows(t, s))
}

func TestATornLineOfTheSideFileTakesNoMessageWithIt(t *testing.T) {
	for _, torn := range []string{`{"fi`, `{"file":"a"}` + "\n" + `{"device":"bed-1","top`} {
		s := openTest(t, Options{})
		execute(t, s, `CREATE TRIGGER entry_poison BEFORE INSERT ON quarantine BEGIN SELECT raise(ABORT, 'no'); END;
			CREATE TRIGGER reading_poison BEFORE INSERT ON skipped BEGIN SELECT raise(ABORT, 'no'); END`)
		require.NoError(t, s.Close())
		require.NoError(t, os.WriteFile(s.path+aside.Suffix, []byte(torn+"\n"+`{"device":"bed-1","topic":"t","received":1}`+"\n"+`{"dev`), 0o600))
		again := func() *Store {
			s, err := Open(t.Context(), s.options)
			require.NoError(t, err)
			return s
		}
		s = again()
		refused := telemetry("bed-2", noon, Value{"temperature", 1})
		refused.Skipped = []Skipped{{Field: "f"}}
		assert.Equal(t, []Outcome{Quarantined}, mustAppend(t, s, refused))
		assert.Equal(t, Counts{Quarantined: 2}, totals(t, s))
		execute(t, s, `DROP TRIGGER entry_poison`)
		require.NoError(t, s.Close())
		s = again()
		assert.Equal(t, Counts{Quarantined: 2}, totals(t, s))
		assert.Len(t, entries(t, s), 2)
		require.NoError(t, s.Close())
	}
}
