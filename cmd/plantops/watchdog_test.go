package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/ingest"
	"github.com/plantops/plantops/store"
)

// way is a fake of everything between publisher and store.
type way struct {
	began  time.Time
	probed []time.Duration // after the start
	broken func(after time.Duration) bool
	hangs  bool // instead of an error at once
	stats  func(after time.Duration) ingest.Stats
}

func newWay() *way {
	return &way{
		began:  time.Now(),
		broken: func(time.Duration) bool { return false },
		stats:  func(time.Duration) ingest.Stats { return ingest.Stats{} },
	}
}

func (w *way) Probe(ctx context.Context) error {
	after := time.Since(w.began)
	w.probed = append(w.probed, after)
	if !w.broken(after) {
		return nil
	}
	if w.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return errors.New("not acknowledged")
}

// guard runs endToEnd on the way for a while. alive is what it said after every second.
func (w *way) guard(t *testing.T, span time.Duration) (lines []string, alive []bool, err error) {
	t.Helper()
	lines, err = inTime(t, span, func(log *slog.Logger) func(context.Context) error {
		e := &endToEnd{probe: w, bound: 7 * time.Second, log: log,
			stats: func() ingest.Stats { return w.stats(time.Since(w.began)) }}
		return func(ctx context.Context) error {
			go func() {
				for tick := time.NewTicker(time.Second); ; {
					select {
					case <-tick.C:
						alive = append(alive, e.alive() == nil)
					case <-ctx.Done():
						return
					}
				}
			}()
			err := e.run(ctx)
			synctest.Wait()
			return err
		}
	})
	return lines, alive, err
}

func TestQuietBoxIsProbedEveryTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWay()
		lines, alive, err := w.guard(t, 35*time.Second)
		require.NoError(t, err)
		assert.Equal(t, []time.Duration{10 * time.Second, 20 * time.Second, 30 * time.Second}, w.probed)
		assert.Equal(t, []string{""}, lines, "nothing to say")
		assert.NotContains(t, alive, false)
	})
}

func TestRealMessagesSaveProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWay()
		w.stats = func(after time.Duration) ingest.Stats {
			n := int64(after / (3 * time.Second))
			return ingest.Stats{Received: n + 5, Stored: n, Pending: 5}
		}
		_, _, err := w.guard(t, 125*time.Second)
		require.NoError(t, err)
		assert.Equal(t, []time.Duration{60 * time.Second, 120 * time.Second}, w.probed)
	})
}

func TestOutageIsSaidOnceAndItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWay()
		w.broken = func(after time.Duration) bool { return after > 15*time.Second && after < 45*time.Second }
		lines, alive, err := w.guard(t, 100*time.Second)
		require.NoError(t, err)
		require.Len(t, lines, 2)
		assert.Contains(t, lines[0], `level=ERROR msg="messages do not come through from the broker into the store" err="not acknowledged"`)
		assert.Contains(t, lines[1], `level=INFO msg="messages come through again" took=18s`)
		assert.True(t, alive[25])
		assert.False(t, alive[30])
		assert.True(t, alive[55])
	})
}

func TestMomentaryFailureIsNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWay()
		w.broken = func(after time.Duration) bool { return after%(10*time.Second) < 3*time.Second }
		lines, alive, err := w.guard(t, time.Minute)
		require.NoError(t, err)
		assert.Equal(t, []string{""}, lines)
		assert.NotContains(t, alive, false)
	})
}

func TestHopelessOutageEndsTheProgram(t *testing.T) {
	for name, hangs := range map[string]bool{"error": false, "silence": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWay()
				w.broken, w.hangs = func(time.Duration) bool { return true }, hangs
				lines, _, err := w.guard(t, time.Hour)
				require.ErrorContains(t, err, "no message has come through")
				assert.Equal(t, exitFailed, exitCode(err))
				assert.Len(t, lines, 1)
				assert.Less(t, time.Since(w.began), 2*time.Minute)
			})
		})
	}
}

// A disk that is full is said by ingest, with the reason; another start would only lose connections.
func TestStoreThatSaysWhyIsNoReasonToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWay()
		w.broken = func(after time.Duration) bool { return after > 15*time.Second && after < 10*time.Minute }
		w.stats = func(after time.Duration) ingest.Stats {
			if after > 28*time.Second && after < 10*time.Minute { // later than the first probe that failed
				return ingest.Stats{Received: 10, Pending: 10, CommitErr: store.ErrFull}
			}
			return ingest.Stats{}
		}
		lines, alive, err := w.guard(t, 20*time.Minute)
		require.NoError(t, err)
		require.Len(t, lines, 2)
		assert.Contains(t, lines[0], "level=ERROR")
		assert.Contains(t, lines[1], `another start would not help" err="disk full"`)
		assert.False(t, alive[28])
		assert.NotContains(t, alive[35:], false)
	})
}

func TestProbeGoesAllTheWayAndIsNotCounted(t *testing.T) {
	r := startServer(t, "MQTT_USE_TLS=true")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	before := r.running.Subscriber.Stats().LastCommit
	require.NoError(t, r.proof.probe.Probe(ctx))
	assert.True(t, r.running.Subscriber.Stats().LastCommit.After(before))
	assert.Equal(t, control.Equation{}, r.counts(t))
	require.NoError(t, r.server.Alive(ctx))
}

func TestProgressWithAnotherProgramsBroker(t *testing.T) {
	for name, c := range map[string]struct {
		stats func(after time.Duration) ingest.Stats
		well  bool
	}{
		"nothing to do": {func(time.Duration) ingest.Stats { return ingest.Stats{Received: 3, Stored: 3} }, true},
		"slow": {func(after time.Duration) ingest.Stats {
			n := int64(after / (4 * time.Second))
			return ingest.Stats{Received: n + 9, Stored: n, Pending: 9}
		}, true},
		"stuck": {func(time.Duration) ingest.Stats { return ingest.Stats{Received: 9, Pending: 9} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				p := ingestProgress{func() ingest.Stats { return c.stats(time.Since(began)) }}
				err := within(context.Background(), 7*time.Second, p.Probe)
				assert.Equal(t, c.well, err == nil, "%v", err)
			})
		})
	}
}
