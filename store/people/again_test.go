package people

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// remade is a database that is made anew while it is read: what was read is read again. changed is called before Change returns.
type remade struct {
	row     []any
	changed func()
}

func (d remade) Change(_ context.Context, do func(Rows) error) error {
	err := do(d)
	d.changed()
	return err
}

func (d remade) ChangeSoon(context.Context, func(Rows) error) error { return nil }

func (d remade) Read(_ context.Context, do func(Rows) error) error {
	_ = do(d) // of the old one
	return do(d)
}

func (d remade) Run(string, ...any) (int64, error) { return 1, nil }

func (d remade) Each(row func([]any) error, _ string, _ ...any) error { return row(d.row) }

func TestWhatIsReadAgainIsThereOnce(t *testing.T) {
	k := NewKeeper(remade{row: []any{"anna", int64(1), int64(2), int64(3)}}, Options{Now: time.Now, Unsure: func() bool { return false }})
	list, err := k.Sessions(t.Context(), "anna")
	require.NoError(t, err)
	assert.Len(t, list, 1)
}

// A database that is made anew after a token is removed, and before that is known here, must not get it back.
func TestATokenThatIsRemovedIsNotRemembered(t *testing.T) {
	var k *Keeper
	remembers := true
	db := remade{row: []any{"abc", "script", "viewer", int64(1), int64(0), []byte("salt"), []byte("hash")}, changed: func() { remembers = k.Remembers() }}
	k = NewKeeper(db, Options{Now: time.Now, Unsure: func() bool { return false }})
	require.NoError(t, k.Reload(t.Context()))
	require.True(t, k.Remembers())
	require.NoError(t, k.RemoveToken(t.Context(), "script"))
	assert.False(t, remembers)
}
