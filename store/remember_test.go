package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWhatARunningServerKnowsIsNotLost(t *testing.T) {
	good, err := os.ReadFile(filledFile(t))
	require.NoError(t, err)
	for page := 2; page <= len(good)/pageBytes; page++ {
		if kind := good[(page-1)*pageBytes]; kind != 10 && kind != 13 || page%2 == 0 && page > 40 {
			continue // no rows, or one of many with readings
		}
		t.Run(fmt.Sprint("page ", page), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "plantops.db")
			require.NoError(t, os.WriteFile(path, good, 0o600))
			s := openTest(t, Options{Path: path})
			accounts, counts := *s.accounts.Load(), totals(t, s)
			refusals, err := s.Refusals(t.Context())
			require.NoError(t, err)
			devices, err := s.Devices(t.Context())
			require.NoError(t, err)
			file, err := os.OpenFile(path, os.O_WRONLY, 0)
			require.NoError(t, err)
			defer func() { _ = file.Close() }() // not before the store: that would end the locks of this process
			_, err = file.WriteAt(bytes.Repeat([]byte{0xA5}, pageBytes), int64(page-1)*pageBytes)
			require.NoError(t, err)
			require.NoError(t, s.acquire(t.Context()))
			require.NoError(t, s.rebuild(t.Context(), errors.New("test")))
			s.release()
			require.NoError(t, s.Check(t.Context()))
			assert.Equal(t, accounts, *s.accounts.Load())
			assert.Equal(t, counts, totals(t, s))
			again, err := s.Refusals(t.Context())
			require.NoError(t, err)
			assert.Equal(t, refusals, again)
			devicesAgain, err := s.Devices(t.Context())
			require.NoError(t, err)
			assert.Equal(t, devices, devicesAgain)
		})
	}
}
