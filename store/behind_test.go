package store

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// behind is a reading of a device behind a gateway.
func behind(account, raw string, value float64) Message {
	return Message{Kind: Telemetry, Device: "z." + raw, Topic: "z/" + raw, Received: noon, Time: noon,
		TimeSource: FromArrival, Values: []Value{{Metric: "temperature", Value: value}},
		Behind: Behind{Source: "z", Raw: raw, Account: account}}
}

func appendOne(t *testing.T, s *Store, m Message) Outcome {
	t.Helper()
	outcomes, err := s.Append(t.Context(), []Message{m}, nil)
	require.NoError(t, err)
	return outcomes[0]
}

func newestReason(t *testing.T, s *Store) string {
	t.Helper()
	for entry, err := range s.Quarantine(t.Context(), 1) {
		require.NoError(t, err)
		return entry.Reason
	}
	return ""
}

// reopened closes a store and opens its file again.
func reopened(t *testing.T, s *Store) *Store {
	t.Helper()
	path := s.path
	require.NoError(t, s.Close())
	return openTest(t, Options{Path: path})
}

func TestADeviceBelongsToTheAccountThatSentItFirst(t *testing.T) {
	s := openTest(t, Options{})
	for _, name := range []string{"gate", "thief"} {
		_, err := s.AddDevice(t.Context(), name)
		require.NoError(t, err)
	}
	require.Equal(t, Stored, appendOne(t, s, behind("gate", "lamp", 1)))
	stolen := behind("thief", "lamp", 99)
	stolen.Received = noon + 5000
	require.Equal(t, Quarantined, appendOne(t, s, stolen))
	assert.Equal(t, "device belongs to another account", newestReason(t, s))
	bye := stolen
	bye.Kind = Farewell
	require.Equal(t, Quarantined, appendOne(t, s, bye))

	d, err := s.Device(t.Context(), "z.lamp")
	require.NoError(t, err)
	assert.Equal(t, Behind{Source: "z", Raw: "lamp", Account: "gate"}, d.Behind)
	assert.Equal(t, noon, d.LastSeen, "the other one's message says nothing about the device")
	assert.Zero(t, d.LeftAt)
	assert.Equal(t, Counts{Stored: 1}, d.Counts)

	s = reopened(t, s)
	require.Equal(t, Quarantined, appendOne(t, s, stolen), "the file knows it too")
	require.NoError(t, s.RemoveDevice(t.Context(), "gate"))
	require.Equal(t, Stored, appendOne(t, s, stolen), "nobody else is there any more")
	d, err = s.Device(t.Context(), "z.lamp")
	require.NoError(t, err)
	assert.Equal(t, "thief", d.Behind.Account)
}

func TestNamesThatBecomeOneID(t *testing.T) {
	s := openTest(t, Options{})
	one, other := behind("gate", "a b", 1), behind("gate", "a/b", 2)
	one.Device, other.Device = "z.a-b", "z.a-b"
	require.Equal(t, Stored, appendOne(t, s, one))
	require.Equal(t, Quarantined, appendOne(t, s, other))
	assert.Equal(t, "another name has this device id", newestReason(t, s))
	other.Behind.Raw, other.Behind.Source = "a b", "y"
	assert.Equal(t, Quarantined, appendOne(t, s, other))
}

func TestADeviceBehindAGatewayIsNoAccount(t *testing.T) {
	s := openTest(t, Options{})
	_, err := s.AddDevice(t.Context(), "z.first")
	require.NoError(t, err)
	require.Equal(t, Quarantined, appendOne(t, s, behind("gate", "first", 1)))
	assert.Equal(t, "device id is an account's", newestReason(t, s))

	require.Equal(t, Stored, appendOne(t, s, behind("gate", "second", 1)))
	_, err = s.AddDevice(t.Context(), "z.second")
	assert.ErrorIs(t, err, ErrOtherRole)
	err = s.AddUser(t.Context(), NewUser{Name: "z.second", Password: "a long password", Subscribe: []string{"#"}})
	assert.ErrorIs(t, err, ErrOtherRole)
}

func TestAnAccountSpeaksForSoManyDevicesAndMetrics(t *testing.T) {
	s := openTest(t, Options{})
	var batch []Message
	for i := range 1001 {
		batch = append(batch, behind("gate", fmt.Sprint("d", i), 1))
	}
	outcomes, err := s.Append(t.Context(), batch, nil)
	require.NoError(t, err)
	assert.Equal(t, Stored, outcomes[999])
	assert.Equal(t, Quarantined, outcomes[1000])
	assert.Equal(t, "too many devices of the account", newestReason(t, s))
	assert.Equal(t, Stored, appendOne(t, s, behind("other", "d2000", 1)), "others are not touched")

	for i := range 17 { // 256 names each
		m := behind("gate", fmt.Sprint("d", i), 1)
		for n := range 250 {
			m.Values = append(m.Values, Value{Metric: fmt.Sprint("m", i, "-", n), Value: 1})
		}
		want := Stored
		if i == 16 {
			want = Quarantined
		}
		require.Equal(t, want, appendOne(t, s, m), "%d", i)
	}
	assert.Equal(t, "too many metrics of the account", newestReason(t, s))
}

func TestFarewell(t *testing.T) {
	s := openTest(t, Options{})
	m := behind("gate", "lamp", 1)
	require.Equal(t, Stored, appendOne(t, s, m))
	bye := m
	bye.Kind, bye.Values, bye.Received = Farewell, nil, noon+2000
	require.Equal(t, Stored, appendOne(t, s, bye))
	lamp := func() Device {
		d, err := s.Device(t.Context(), "z.lamp")
		require.NoError(t, err)
		return d
	}
	assert.Equal(t, noon, lamp().LastSeen)
	assert.Equal(t, noon+2000, lamp().LeftAt)
	s = reopened(t, s)
	assert.Equal(t, noon+2000, lamp().LeftAt)

	old := m
	old.Retained, old.Received, old.Values = true, noon+3000, []Value{{Metric: "humidity", Value: 1}}
	require.Equal(t, Stored, appendOne(t, s, old))
	assert.Equal(t, noon+2000, lamp().LeftAt, "a copy of an old message proves nothing")
	nothing := m
	nothing.Kind, nothing.Received = Nothing, noon+3500
	require.Equal(t, Stored, appendOne(t, s, nothing))
	assert.Equal(t, noon, lamp().LastSeen)

	m.Received = noon + 4000
	require.Equal(t, Stored, appendOne(t, s, m))
	assert.Zero(t, lamp().LeftAt)
	assert.Equal(t, noon+4000, lamp().LastSeen)
}

// A device purged for good leaves nothing that the next one of its name could stumble over.
func TestPurgedDeviceBehindAGateway(t *testing.T) {
	s := openTest(t, Options{})
	require.Equal(t, Stored, appendOne(t, s, behind("gate", "lamp", 1)))
	_, err := s.PurgeDevice(t.Context(), "z.lamp")
	require.NoError(t, err)
	require.Equal(t, Stored, appendOne(t, s, behind("other", "lamp", 1)))
	d, err := s.Device(t.Context(), "z.lamp")
	require.NoError(t, err)
	assert.Equal(t, "other", d.Behind.Account)
}

// What a failed transaction has bound is bound no more.
func TestABatchThatFailsBindsNothing(t *testing.T) {
	s := openTest(t, Options{})
	require.Equal(t, Stored, appendOne(t, s, behind("gate", "first", 1)))
	require.Error(t, s.transact(func() error {
		m := behind("gate", "lamp", 1)
		_, err := s.appendMessage(&m)
		require.NoError(t, err)
		require.Len(t, s.state.behind["gate"], 2)
		return assert.AnError
	}))
	assert.Len(t, s.state.behind["gate"], 1)
	require.Equal(t, Stored, appendOne(t, s, behind("other", "lamp", 1)))
	d, err := s.Device(t.Context(), "z.lamp")
	require.NoError(t, err)
	assert.Equal(t, "other", d.Behind.Account)
}
