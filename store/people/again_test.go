package people

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// remade is a database that is made anew while it is read: what was read is read again.
type remade struct{ row []any }

func (d remade) Change(context.Context, func(Rows) error) error     { return nil }
func (d remade) ChangeSoon(context.Context, func(Rows) error) error { return nil }

func (d remade) Read(_ context.Context, do func(Rows) error) error {
	_ = do(d) // of the old one
	return do(d)
}

func (d remade) Run(string, ...any) (int64, error) { return 0, nil }

func (d remade) Each(row func([]any) error, _ string, _ ...any) error { return row(d.row) }

func TestWhatIsReadAgainIsThereOnce(t *testing.T) {
	k := NewKeeper(remade{[]any{"anna", int64(1), int64(2), int64(3)}}, Options{Now: time.Now, Unsure: func() bool { return false }})
	list, err := k.Sessions(t.Context(), "anna")
	require.NoError(t, err)
	assert.Len(t, list, 1)
}
