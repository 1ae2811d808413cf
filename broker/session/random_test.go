package session

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

type rapidDice struct{ t *rapid.T }

func (d rapidDice) roll(n int) int { return rapid.IntRange(0, n-1).Draw(d.t, "") }

// TestEveryInterleaving runs random events against the lists of world.
func TestEveryInterleaving(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapidDice{t}, t.Fatalf)
		for range 300 {
			w.step()
		}
	})
}

// TestManySteps is the same with a plain generator, which is a hundred times
// as fast. PLANTOPS_STEPS sets the number of steps; the long form is 10000000.
func TestManySteps(t *testing.T) {
	steps := 200_000
	if text := os.Getenv("PLANTOPS_STEPS"); text != "" {
		var err error
		steps, err = strconv.Atoi(text)
		require.NoError(t, err, "PLANTOPS_STEPS")
	}
	const stepsPerWorld = 20_000
	start := time.Now()
	sent, wrapped := uint64(0), 0
	for seed := range uint64(max(1, steps/stepsPerWorld)) {
		w := newWorld(seededDice{rand.New(rand.NewPCG(seed, 7))}, nil)
		w.fatalf = func(format string, args ...any) {
			t.Fatalf("world %d: "+format, append([]any{seed}, args...)...)
		}
		for range stepsPerWorld {
			before := w.s.outgoing.flights.lastID
			w.step()
			if w.s.outgoing.flights.lastID < before {
				wrapped++
			}
		}
		sent += w.s.Stats().Delivered
	}
	t.Logf("%d steps in %v: %d messages delivered, ids wrapped or began anew %d times", steps, time.Since(start).Round(time.Millisecond), sent, wrapped)
}

type seededDice struct{ r *rand.Rand }

func (d seededDice) roll(n int) int { return d.r.IntN(n) }
