package store

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A large file is not checked before devices are let in, but what is damaged in it is found and mended while it is used.
func TestALargeDatabaseIsCheckedWhileItIsUsed(t *testing.T) {
	path := filledFile(t)
	root, err := strconv.Atoi(asked(t, path, `SELECT rootpage FROM sqlite_schema WHERE name = 'quarantine'`)[0])
	require.NoError(t, err)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	page := content[(root-1)*pageBytes:][:pageBytes]
	for i := range page {
		page[i] ^= 0x5a
	}
	require.NoError(t, os.WriteFile(path, content, 0o600))
	s := openTest(t, Options{Path: path})
	list, err := s.Salvages(t.Context())
	require.NoError(t, err)
	require.Empty(t, list, "a start does not look at it")
	s.unchecked.Store(true) // as Open leaves it after an unclean stop when the file is large
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.CheckLater(ctx) }()
	require.Eventually(t, func() bool {
		list, err := s.Salvages(t.Context())
		return err == nil && len(list) == 1
	}, 30*time.Second, 10*time.Millisecond, "it is made anew")
	cancel()
	require.NoError(t, <-ended)
	mustRegain(t, s)
	assert.NoError(t, s.Check(t.Context()))
}

func TestExamineSaysWhichDeviceLacksWhat(t *testing.T) {
	s := openTest(t, Options{})
	for i := range int64(50) {
		mustAppend(t, s, telemetry("bed-1", noon+i, Value{"ph", float64(i)}), telemetry("bed-2", noon+i, Value{"ph", float64(i)}))
	}
	e, err := s.Examine(t.Context(), nil)
	require.NoError(t, err)
	assert.Empty(t, e.Findings)
	assert.EqualValues(t, 100, e.Readings)
	assert.EqualValues(t, 2, e.Devices)
}

func TestAStartFinishesARestoreThatWasBrokenOff(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("bed-1", noon, Value{"ph", 6}))
	require.NoError(t, s.Close())
	other := openTest(t, Options{Path: filepath.Join(t.TempDir(), "other.db")})
	mustAppend(t, other, telemetry("bed-1", noon, Value{"ph", 6}), telemetry("bed-1", noon+1, Value{"ph", 6}))
	require.NoError(t, other.Close())
	require.NoError(t, os.Rename(other.path, s.path+".restored-20260107T120000.000Z"))
	for _, readOnly := range []bool{true, false} {
		again, err := Open(t.Context(), Options{Path: s.path, ReadOnly: readOnly})
		require.NoError(t, err)
		want := int64(2)
		if readOnly {
			want = 1 // who only looks has no right to change names
		}
		h, err := again.Health(t.Context())
		require.NoError(t, err)
		assert.Equal(t, want, h.Readings)
		require.NoError(t, again.Close())
	}
	kept := 0
	for _, name := range beside(t, s) {
		if strings.HasPrefix(name, ".before-restore-") && !strings.HasSuffix(name, walSuffix) {
			kept++
		}
	}
	assert.Equal(t, 1, kept)
}

// One bit of a name is another name. The index has it too: a start sees that they differ, and takes the right one.
func TestANameThatIsDamagedIsNotTakenForAnother(t *testing.T) {
	for name, c := range map[string]struct {
		from, to   string
		registered bool
		want       string
		lost       string
	}{
		"the account knows":        {"bed-1", "bee-1", true, "bed-1", ""},
		"it can be no name":        {"bed-1", "be$-1", false, "bed-1", ""},
		"nobody knows":             {"bed-1", "bee-1", false, "", `the name of device 1, which is "be`},
		"a metric that can be one": {"temperature", "temperatura", false, "bed-1", `the name of metric 1, which is "temperatur`},
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, Options{})
			if c.registered {
				_, err := s.AddDevice(t.Context(), "bed-1")
				require.NoError(t, err)
			}
			mustAppend(t, s, telemetry("bed-1", noon, Value{"temperature", 20}))
			require.NoError(t, s.Close())
			content, err := os.ReadFile(s.path)
			require.NoError(t, err)
			damaged := 0
			for at := 0; ; {
				next := strings.Index(string(content[at:]), c.from)
				if next < 0 {
					break
				}
				at += next
				// The row in the table: before the name stands its record, and behind it no id, as in the index. Both are tried.
				if damaged++; damaged == 1 {
					copy(content[at:], c.to)
				}
				at += len(c.from)
			}
			require.Greater(t, damaged, 1)
			require.NoError(t, os.WriteFile(s.path, content, 0o600))
			s = openTest(t, Options{Path: s.path})
			require.NoError(t, s.Check(t.Context()))
			devices, err := s.Devices(t.Context())
			require.NoError(t, err)
			require.Len(t, devices, 1)
			if c.want != "" {
				assert.Equal(t, c.want, devices[0].ID)
			}
			list, err := s.Salvages(t.Context())
			require.NoError(t, err)
			require.Len(t, list, 1)
			if c.lost == "" {
				assert.Empty(t, list[0].Lost)
			} else {
				assert.Contains(t, list[0].Lost, c.lost)
			}
		})
	}
}

// The names of columns stand in the schema as text, without a checksum. A start that does not find one makes the file anew.
func TestADamagedSchemaIsNoReasonNotToStart(t *testing.T) {
	s := openTest(t, Options{})
	_, err := s.AddDevice(t.Context(), "bed-1")
	require.NoError(t, err)
	mustAppend(t, s, telemetry("bed-1", noon, Value{"temperature", 20}))
	require.NoError(t, s.Close())
	content, err := os.ReadFile(s.path)
	require.NoError(t, err)
	at := strings.Index(string(content), "hash      BLOB")
	require.Positive(t, at)
	content[at] ^= 1
	require.NoError(t, os.WriteFile(s.path, content, 0o600))
	s = openTest(t, Options{Path: s.path})
	assert.EqualValues(t, 1, countRows(t, s))
	require.NoError(t, s.Check(t.Context()))
	list, err := s.Salvages(t.Context())
	require.NoError(t, err)
	assert.Len(t, list, 1)
}
