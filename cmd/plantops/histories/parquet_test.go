package histories

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// other is a file that another library wrote (github.com/parquet-go/parquet-go): two row groups, several pages, Snappy, values that are
// missing, times in microseconds, a column that is nobody's.
func other(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/other.parquet")
	require.NoError(t, err)
	return text
}

func TestParquetOfAnotherLibrary(t *testing.T) {
	text := other(t)
	r, err := NewParquet(bytes.NewReader(text), int64(len(text)), Place{}, Options{})
	require.NoError(t, err)
	whole := readAll(t, r)
	require.Len(t, whole.values, 256)
	assert.Equal(t, "2: 2024-01-01T00:00:01.000 bed-1 ph = 0.1", whole.values[0])
	assert.Equal(t, "299: 2024-01-01T00:04:58.000 bed-2 ec = 29.8", whole.values[255])
	require.Len(t, whole.rejected, 44)
	assert.Equal(t, "1: the value is not a number", whole.rejected[0])
	assert.Equal(t, "300: no device", whole.rejected[43])

	r, err = NewParquet(bytes.NewReader(text), int64(len(text)), Place{}, Options{})
	require.NoError(t, err)
	before := &found{}
	require.NoError(t, r.Next(before))
	require.Less(t, len(before.values), 256)
	r, err = NewParquet(bytes.NewReader(text), int64(len(text)), r.Place(), Options{})
	require.NoError(t, err)
	assert.Equal(t, whole.values, append(before.values, readAll(t, r).values...))
}

func TestDamagedParquetIsAnError(t *testing.T) {
	text := other(t)
	for name, c := range map[string]struct {
		text []byte
		want error
	}{
		"cut":        {text[:len(text)/2], errParquet},
		"short":      {text[:5], errParquet},
		"one column": {bytes.ReplaceAll(text, []byte("device"), []byte("gadget")), ErrOptions},
	} {
		_, err := NewParquet(bytes.NewReader(c.text), int64(len(c.text)), Place{}, Options{})
		assert.ErrorIs(t, err, c.want, name)
	}
	page := bytes.Clone(text)
	copy(page[4:40], strings.Repeat("\xff", 36))
	r, err := NewParquet(bytes.NewReader(page), int64(len(page)), Place{}, Options{})
	require.NoError(t, err)
	assert.Error(t, r.Next(&found{}))
}

// Whatever a file holds, what is read of it can be stored, and the rest is an error.
func FuzzParquet(f *testing.F) {
	text := other(f)
	f.Add(text)
	for i := 8; i < len(text); i += 499 {
		broken := bytes.Clone(text)
		broken[i] ^= 0x15
		f.Add(broken)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := NewParquet(bytes.NewReader(text), int64(len(text)), Place{}, Options{})
		got := &found{}
		for err == nil && len(got.last) < 10_000 {
			err = r.Next(got)
		}
		if err == nil || errors.Is(err, io.EOF) {
			checkFound(t, got)
		}
	})
}
