package store

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// partly is a message that was read but for some fields: name, text, name, text.
func partly(at int64, skipped ...string) Message {
	m := telemetry("a", noon+at, Value{"ph", 6})
	for i := 0; i < len(skipped); i += 2 {
		m.Skipped = append(m.Skipped, Skipped{skipped[i], skipped[i+1]})
	}
	m.Payload = []byte(fmt.Sprint("payload ", at))
	return m
}

func originals(t *testing.T, s *Store, device string) (payloads []string) {
	t.Helper()
	list, err := s.Originals(t.Context(), device)
	require.NoError(t, err)
	for _, o := range list {
		payloads = append(payloads, string(o.Payload))
	}
	return payloads
}

func TestSkippedFieldsAreCountedAndNamed(t *testing.T) {
	s := openTest(t, Options{})
	first := partly(0, "temperature", "21,5", "unit", "C")
	assert.Equal(t, []Outcome{Stored, Duplicate, Stored}, mustAppend(t, s, first, first, partly(10, "temperature", "21,6")))
	check := func() {
		t.Helper()
		list, err := s.SkippedFields(t.Context(), "a")
		require.NoError(t, err)
		assert.Equal(t, []SkippedField{
			{Device: "a", Field: "temperature", Text: "21,6", Count: 2, First: noon, Last: noon + 10},
			{Device: "a", Field: "unit", Text: "C", Count: 1, First: noon, Last: noon},
		}, list)
		d, err := s.Device(t.Context(), "a")
		require.NoError(t, err)
		assert.Equal(t, int64(3), d.Skipped)
		assert.Equal(t, Skipped{"temperature", "21,6"}, d.LastSkipped)
		assert.Equal(t, noon+10, d.SkippedAt)
		assert.Equal(t, []string{"payload 0", "payload 10"}, originals(t, s, "a"))
	}
	check()
	require.NoError(t, s.Close())
	s = openTest(t, Options{Path: s.path})
	check()
	mustAppend(t, s, Message{Kind: Heartbeat, Device: "b", Received: noon})
	list, err := s.SkippedFields(t.Context(), "")
	require.NoError(t, err)
	assert.Len(t, list, 2, "of all devices")
	list, err = s.SkippedFields(t.Context(), "b")
	require.NoError(t, err)
	assert.Empty(t, list)
	assert.Equal(t, Counts{Stored: 3, Duplicate: 1}, totals(t, s))
	assert.Empty(t, entries(t, s))
}

func TestAMessageIsKeptWhenItSaysSomethingNew(t *testing.T) {
	s := openTest(t, Options{})
	long := strings.Repeat("x", maxTextBytes+1)
	mustAppend(t, s, partly(0, "mode", "auto"), partly(1, "mode", "auto"), partly(2, "mode", "auto", "unit", ""), partly(3, "unit", ""))
	mustAppend(t, s, partly(4, "mode", "auto"), partly(5, "mode", "manual"), partly(6, "mode", long), partly(7, "mode", long))
	assert.Equal(t, []string{"payload 0", "payload 2", "payload 5", "payload 6", "payload 7"}, originals(t, s, "a"))
}

func TestAMessageInQuarantineIsNotKeptTwice(t *testing.T) {
	s := openTest(t, Options{})
	m := partly(0, "temperature", "21,5")
	m.Kind, m.Values, m.Reason = Bad, nil, "no reading"
	assert.Equal(t, []Outcome{Quarantined}, mustAppend(t, s, m))
	assert.Empty(t, originals(t, s, "a"))
	d, err := s.Device(t.Context(), "a")
	require.NoError(t, err)
	assert.Equal(t, int64(1), d.Skipped)

	m.Kind, m.Values = Telemetry, []Value{{"ph", 6}}
	outcome, err := s.ReplayQuarantined(t.Context(), entries(t, s)[0].ID, m)
	require.NoError(t, err)
	assert.Equal(t, Stored, outcome)
	assert.Equal(t, []string{"payload 0"}, originals(t, s, "a"), "when it leaves the quarantine, what was not read stays")
}

func TestWhatIsKeptOfSkippedFieldsIsBounded(t *testing.T) {
	s := openTest(t, Options{})
	for round := range int64(4) {
		var batch []Message
		for i := range int64(100) {
			batch = append(batch, partly(round*100+i, fmt.Sprint("field-", round, "-", i), "x"))
		}
		batch[0].Payload = make([]byte, 2*maxOriginalBytes)
		mustAppend(t, s, batch...)
	}
	list, err := s.SkippedFields(t.Context(), "a")
	require.NoError(t, err)
	require.Len(t, list, maxSkippedFields+1)
	count := int64(0)
	for _, f := range list {
		count += f.Count
		if f.Field == otherFields {
			assert.Equal(t, int64(400-maxSkippedFields), f.Count)
		}
	}
	assert.Equal(t, int64(400), count)

	for i := range int64(maxOriginals) {
		mustAppend(t, s, partly(1000+i, "mode", fmt.Sprint(i)))
	}
	kept := originals(t, s, "a")
	require.Len(t, kept, maxOriginals)
	assert.Equal(t, "payload 1000", kept[0])
	sum, err := s.w.sumOriginals.number(int64(entryOverheadBytes))
	require.NoError(t, err)
	assert.Equal(t, sum, s.tx.originals.committed)

	big := partly(5000, "mode", "big")
	big.Payload = make([]byte, 2*maxOriginalBytes)
	mustAppend(t, s, big)
	all, err := s.Originals(t.Context(), "a")
	require.NoError(t, err)
	last := all[len(all)-1]
	assert.Len(t, last.Payload, maxOriginalBytes)
	assert.Equal(t, int64(2*maxOriginalBytes), last.Size)
}

func TestAllMessagesTogetherAreBounded(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, partly(0, "mode", "first"))
	s.tx.originals.next = maxOriginalsBytes // as if there were so many
	s.tx.originals.committed = maxOriginalsBytes
	other := partly(1, "mode", "second")
	other.Device = "b"
	mustAppend(t, s, other)
	assert.Empty(t, originals(t, s, "a"), "the oldest goes")
}

func TestAnyTextCanBeStored(t *testing.T) {
	s := openTest(t, Options{})
	nasty := []string{"\x00", "", "\x1b[31m", "\xff\xfe", strings.Repeat("é", 200), strings.Repeat("\x01", 200), "\u202e"}
	for i, text := range nasty {
		m := partly(int64(i), text, text)
		m.TimeSource, m.Given = FromArrivalImpossible, text
		require.Equal(t, []Outcome{Stored}, mustAppend(t, s, m), "%q", text)
	}
	list, err := s.SkippedFields(t.Context(), "a")
	require.NoError(t, err)
	for _, f := range list {
		assert.True(t, utf8.ValidString(f.Field) && utf8.ValidString(f.Text))
		assert.True(t, len(f.Field) <= maxFieldBytes && len(f.Text) <= maxTextBytes && f.Field != "")
		assert.NotContains(t, f.Text, "\x1b")
	}
}

func TestTheTimeThatWasNotUsedIsKept(t *testing.T) {
	s := openTest(t, Options{})
	m := telemetry("a", noon, Value{"ph", 6})
	m.TimeSource, m.Given = FromArrivalImpossible, "2026-01-07T11:00:00"
	mustAppend(t, s, m, telemetry("a", noon+1, Value{"ph", 6}))
	var given []string
	for r, err := range s.Readings(t.Context(), Query{}) {
		require.NoError(t, err)
		given = append(given, r.Given)
	}
	assert.Equal(t, []string{"2026-01-07T11:00:00", ""}, given)
}

func TestAMessageOfSeveralPartsHasOneOutcome(t *testing.T) {
	s := openTest(t, Options{})
	several := func(values ...float64) Message {
		m := telemetry("a", noon, Value{"ph", values[0]})
		for i, v := range values[1:] {
			m.More = append(m.More, Part{Time: noon + int64(i+1)*10, Values: []Value{{"ph", v}}})
		}
		return m
	}
	assert.Equal(t, []Outcome{Stored, Duplicate, Stored, Quarantined, Stored},
		mustAppend(t, s, several(1, 2), several(1, 2), several(1, 2, 3), several(1, 9), several(9, 2, 3, 4)))
	assert.Equal(t, Counts{Stored: 3, Duplicate: 1, Quarantined: 1}, totals(t, s))
	assert.Equal(t, []int64{0, 10, 20, 30}, timesOf(t, s))
	assert.Len(t, entries(t, s), 2, "what conflicts is kept once per message")

	untimed := several(1, 1, 1)
	untimed.TimeSource, untimed.Received = FromArrival, noon
	for i := range untimed.More {
		untimed.More[i].TimeSource = FromArrival
	}
	mustAppend(t, s, untimed)
	assert.Equal(t, []int64{0, 1, 2, 3, 10, 20, 30}, timesOf(t, s))

	outcome, err := s.ReplayQuarantined(t.Context(), entries(t, s)[0].ID, several(1, 9, 5, 4, 6))
	require.NoError(t, err)
	assert.Equal(t, Stored, outcome)
	assert.Contains(t, timesOf(t, s), int64(40))
}

func TestAFailedCommitCountsNoSkippedField(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, partly(0, "mode", "auto"))
	execute(t, s, `PRAGMA max_page_count = 1`)
	batch := []Message{partly(1, "mode", "manual"), {Kind: Bad, Device: "a", Payload: make([]byte, 100_000), Received: noon}}
	_, err := s.Append(t.Context(), batch, nil)
	require.ErrorIs(t, err, ErrFull)
	execute(t, s, `PRAGMA max_page_count = 1000000`)
	d, err := s.Device(t.Context(), "a")
	require.NoError(t, err)
	assert.Equal(t, int64(1), d.Skipped)
	assert.Equal(t, "auto", d.LastSkipped.Text)
	mustAppend(t, s, batch...)
	d, err = s.Device(t.Context(), "a")
	require.NoError(t, err)
	assert.Equal(t, int64(2), d.Skipped)
	assert.Equal(t, []string{"payload 0", "payload 1"}, originals(t, s, "a"))
}
