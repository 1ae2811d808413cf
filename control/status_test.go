package control

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/storetest"
)

func TestDiskIsLowBelowWhicheverLimitIsReachedFirst(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for name, c := range map[string]struct {
		free, total int64
		was, low    bool
	}{
		"small disk, room":                  {200 * mib, gib, false, false},
		"small disk, under 200 MiB":         {200*mib - 1, gib, false, true},
		"card, room":                        {gib, 20 * gib, false, false},
		"card, under 5 %":                   {gib - 1000, 20 * gib, false, true},
		"large disk, under 5 %":             {2 * gib, 1000 * gib, false, false},
		"large disk, under 2 GiB":           {2*gib - 1, 1000 * gib, false, true},
		"was low, a little more":            {gib + gib/20, 20 * gib, true, true},
		"was low, a tenth more":             {gib + gib/10, 20 * gib, true, false},
		"full":                              {0, gib, true, true},
		"disk that never has so much space": {100 * mib, 150 * mib, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.low, LowSpace(store.Space{FreeBytes: c.free, TotalBytes: c.total}, c.was))
		})
	}
}

func TestStatusNamesAListThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	authority, err := certs.Create(certs.Options{Dir: dir}, false)
	require.NoError(t, err)
	_, err = authority.IssueFiles("bed-1", filepath.Join(dir, "bed-1.crt"), filepath.Join(dir, "bed-1.key"))
	require.NoError(t, err)
	server := New(Options{Store: storetest.Open(t), Authority: authority})
	problems := func() string {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, authority.Run(ctx, func() {})) // it looks once
		s, err := server.Status(t.Context())
		require.NoError(t, err)
		return strings.Join(s.Problems, "\n")
	}
	assert.NotContains(t, problems(), "revocation list")
	require.NoError(t, os.Truncate(filepath.Join(dir, "ca.crl"), 0))
	assert.Contains(t, problems(), "revocation list "+filepath.Join(dir, "ca.crl")+" is empty; the list before stays in force")
}
