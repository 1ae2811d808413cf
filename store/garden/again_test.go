package garden

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// remade is a database that is made anew while it is read: what was read is read again.
type remade struct{}

func (d remade) Change(context.Context, func(Rows) error) error { return nil }

func (d remade) Read(_ context.Context, do func(Rows) error) error {
	_ = do(d) // of the old one
	return do(d)
}

func (d remade) Run(string, ...any) (int64, error) { return 0, nil }

func (d remade) Each(row func([]any) error, _ string, _ ...any) error { return row(make([]any, 12)) }

func TestWhatIsReadAgainIsThereOnce(t *testing.T) {
	k := NewKeeper(remade{}, Options{Now: time.Now})
	notes, _, err := k.Notes(t.Context(), NoteQuery{})
	require.NoError(t, err)
	assert.Len(t, notes, 1)
	registrations, err := k.registrations(t.Context(), "")
	require.NoError(t, err)
	assert.Len(t, registrations, 1)
}
