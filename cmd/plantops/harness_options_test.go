//go:build linux

package main_test

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// intSetting reads a parameter of the long form from the environment.
func intSetting(t *testing.T, name string, short int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return short
	}
	value, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	return value
}

func durationSetting(t *testing.T, name string, short time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return short
	}
	value, err := time.ParseDuration(text)
	require.NoError(t, err, name)
	return value
}

// seeded returns random numbers that PLANTOPS_SEED repeats.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(intSetting(t, "PLANTOPS_SEED", int(time.Now().UnixNano())))
	t.Logf("PLANTOPS_SEED=%d repeats these choices", seed)
	return rand.New(rand.NewPCG(seed, seed))
}
