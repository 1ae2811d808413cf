package store

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDeviceAccountFromAddToRemove(t *testing.T) {
	s := openTest(t, Options{})
	secret, err := s.AddDevice(t.Context(), "bed-1")
	require.NoError(t, err)
	assert.Len(t, secret, 43, "32 random bytes")
	check := func(password string, want bool) {
		t.Helper()
		a, ok := s.Authenticate("bed-1", []byte(password), Wait{})
		assert.Equal(t, want, ok)
		assert.Equal(t, want, a.Name == "bed-1")
	}
	check(secret, true)
	check(secret+"x", false)
	check("", false)
	_, err = s.AddDevice(t.Context(), "bed-1")
	require.ErrorIs(t, err, ErrExists)
	check(secret, true)

	second, err := s.RotateDevice(t.Context(), "bed-1")
	require.NoError(t, err)
	check(secret, false)
	check(second, true)

	require.NoError(t, s.Close())
	s = openTest(t, Options{Path: s.path})
	check(second, true)
	a, ok := s.Account("bed-1")
	require.True(t, ok)
	assert.Equal(t, Account{Name: "bed-1", Role: RoleDevice, Publish: []string{"devices/%u/#"}, Subscribe: []string{"devices/%u/#"}, Created: noon}, a)

	mustAppend(t, s, telemetry("bed-1", noon, Value{"ph", 6}))
	require.NoError(t, s.RemoveDevice(t.Context(), "bed-1"))
	check(second, false)
	d, err := s.Device(t.Context(), "bed-1")
	require.NoError(t, err)
	assert.False(t, d.Registered)
	assert.Equal(t, Counts{Stored: 1}, d.Counts, "readings and counters stay")

	_, err = s.AddDevice(t.Context(), "bed-1")
	require.NoError(t, err, "it may come back")
	d, err = s.Device(t.Context(), "bed-1")
	require.NoError(t, err)
	assert.True(t, d.Registered)
	assert.Equal(t, int64(1), d.Counts.Stored)
}

func TestUnknownDeviceIsNotFound(t *testing.T) {
	s := openTest(t, Options{})
	_, err := s.RotateDevice(t.Context(), "nobody")
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorContains(t, err, "nobody")
	require.ErrorIs(t, s.RemoveDevice(t.Context(), "nobody"), ErrNotFound)
	_, ok := s.Authenticate("nobody", make([]byte, 32), Wait{})
	assert.False(t, ok)
	_, ok = s.Account("nobody")
	assert.False(t, ok)
}

func TestSecretsAreNotInTheFile(t *testing.T) {
	s := openTest(t, Options{})
	secret, err := s.AddDevice(t.Context(), "bed-1")
	require.NoError(t, err)
	for _, suffix := range []string{"", walSuffix} {
		data, err := readOutside(s.path + suffix)
		require.NoError(t, err)
		assert.NotContains(t, string(data), secret)
	}
}

func TestCheckID(t *testing.T) {
	for _, id := range []string{"a", "bed-1", "Gewächshaus 2", strings.Repeat("x", 64)} {
		assert.NoError(t, CheckID(id), id)
	}
	for id, says := range map[string]string{
		"":                      "1 to 64",
		strings.Repeat("x", 65): "1 to 64",
		"a+":                    "not allowed",
		"#":                     "not allowed",
		"a/b":                   "not allowed",
		"$SYS":                  "not allowed",
		"%u":                    "not allowed",
		"a\x00":                 "control",
		"a\u0085":               "control",
		" a":                    "spaces",
		"a ":                    "spaces",
		"\xff":                  "UTF-8",
		"plantops_backend":      "reserved",
	} {
		err := CheckID(id)
		require.ErrorIs(t, err, ErrInvalidID, "%q", id)
		assert.ErrorContains(t, err, says, "%q", id)
	}
}

func TestAPurgedDeviceLeavesNothingButItsCounts(t *testing.T) {
	s := openTest(t, Options{})
	_, err := s.AddDevice(t.Context(), "bed-1")
	require.NoError(t, err)
	var batch []Message
	for i := range int64(2500) {
		batch = append(batch, telemetry("bed-1", noon+i, Value{"ph", 6}))
	}
	batch = append(batch, telemetry("bed-2", noon, Value{"ph", 7}), Message{Kind: Bad, Device: "bed-1", Reason: "not JSON", Received: noon})
	mustAppend(t, s, batch...)
	before := totals(t, s)

	_, err = s.PurgeDevice(t.Context(), "bed-1")
	require.ErrorIs(t, err, ErrExists, "it has an account")
	require.NoError(t, s.RemoveDevice(t.Context(), "bed-1"))
	deleted, err := s.PurgeDevice(t.Context(), "bed-1")
	require.NoError(t, err)
	assert.EqualValues(t, 2500, deleted)
	_, err = s.PurgeDevice(t.Context(), "bed-1")
	require.ErrorIs(t, err, ErrNotFound)

	assert.Equal(t, before, totals(t, s), "the equation holds")
	assert.Empty(t, entries(t, s))
	devices, err := s.Devices(t.Context())
	require.NoError(t, err)
	require.Len(t, devices, 1)
	assert.Equal(t, []Outcome{Stored, Stored}, mustAppend(t, s, telemetry("bed-1", noon, Value{"ph", 5}), telemetry("bed-2", noon+1, Value{"ph", 5})),
		"a device of that name begins anew, and the metric lives on")
	require.NoError(t, s.Check(t.Context()))
}
