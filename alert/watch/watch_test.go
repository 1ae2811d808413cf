package watch

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/alert"
	"github.com/plantops/plantops/store/history"
	"github.com/plantops/plantops/store/outbox"
)

// damaged is a database of which a part cannot be read for a time.
type damaged struct {
	*outbox.Keeper
	broken bool
}

func (d *damaged) Load(ctx context.Context) (outbox.Kept, error) {
	if d.broken {
		return outbox.Kept{}, errors.New("the page is damaged")
	}
	return d.Keeper.Load(ctx)
}

// blind is a box that cannot look at itself.
type blind struct{ *world }

func (blind) Faults(context.Context) ([]alert.Fault, error) {
	return nil, errors.New("a setting is damaged")
}

func dry(hours int) *world {
	now := time.Now()
	return &world{devices: 1, every: 5 * time.Minute, dry: map[int][]stretch{0: {{now, now.Add(time.Duration(hours) * time.Hour)}}},
		random: rand.New(rand.NewPCG(1, 2)), readings: map[string]history.Reading{}, seen: map[string]int64{}, next: map[int]time.Time{}}
}

func TestWhatCannotBeReadAtAStartIsReadLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, source := &damaged{Keeper: openStore(t).Outbox(), broken: true}, dry(8)
		w := Open(t.Context(), Options{Rules: alert.Rules{After: time.Minute}, Source: source, Keeper: k, Now: source.now, Doubt: source.doubt,
			Log: slog.New(slog.DiscardHandler)})
		assert.Empty(t, w.Open())
		assert.ErrorContains(t, w.look(t.Context()), "damaged")
		assert.ErrorContains(t, w.Acknowledge(t.Context(), 1, "anna"), "damaged")
		w.learn(t.Context()) // there is nothing to keep

		assert.NoError(t, w.Well(t.Context()), "for a moment")
		time.Sleep(6 * time.Minute)
		assert.Error(t, w.Well(t.Context()))
		k.broken = false
		for range 60 {
			time.Sleep(time.Minute)
			require.NoError(t, w.look(t.Context()))
		}
		assert.Len(t, w.Open(), 1)
		assert.NoError(t, w.Well(t.Context()))
	})
}

func TestABoxThatCannotLookAtItselfJudgesPlants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := blind{dry(8)}
		w := Open(t.Context(), Options{Rules: alert.Rules{After: time.Minute}, Source: source, Keeper: openStore(t).Outbox(), Now: source.now,
			Doubt: source.doubt, Log: slog.New(slog.DiscardHandler)})
		for range 60 {
			time.Sleep(time.Minute)
			require.NoError(t, w.look(t.Context()))
		}
		assert.Len(t, w.Open(), 1)
	})
}
