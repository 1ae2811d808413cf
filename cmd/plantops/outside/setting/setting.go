//go:build linux

package setting

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Patience is how long a test waits for what should come soon.
const Patience = 30 * time.Second

// Int reads a parameter of the long form from the environment.
func Int(t *testing.T, name string, short int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return short
	}
	value, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	return value
}

// Duration reads one that is a duration.
func Duration(t *testing.T, name string, short time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return short
	}
	value, err := time.ParseDuration(text)
	require.NoError(t, err, name)
	return value
}

// Random returns random numbers that PLANTOPS_SEED repeats.
func Random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(Int(t, "PLANTOPS_SEED", int(time.Now().UnixNano())))
	t.Logf("PLANTOPS_SEED=%d repeats these choices", seed)
	return rand.New(rand.NewPCG(seed, seed))
}
