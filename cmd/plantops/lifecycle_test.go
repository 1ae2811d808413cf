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
)

func newTestLifecycle() *lifecycle { return newLifecycle(slog.New(slog.DiscardHandler)) }

func TestStopRunsEveryStepLastFirst(t *testing.T) {
	life := newTestLifecycle()
	var order []string
	step := func(name string, err error) {
		life.onStop(name, func(context.Context) error {
			order = append(order, name)
			return err
		})
	}
	step("store", nil)
	step("broker", errors.New("jammed"))
	life.start("ingest", func(ctx context.Context) error {
		<-ctx.Done()
		order = append(order, "ingest")
		return ctx.Err()
	})
	step("devices", nil)

	err := life.stop(time.Minute)
	assert.EqualError(t, err, "stop broker: jammed")
	assert.Equal(t, []string{"devices", "ingest", "broker", "store"}, order)
	assert.NoError(t, life.stop(time.Minute), "a second stop has nothing to do")
}

func TestStepThatOverrunsTheDeadlineIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		life := newTestLifecycle()
		closed := make(chan struct{})
		life.onStop("store", func(context.Context) error {
			close(closed)
			return nil
		})
		stuck := make(chan struct{})
		life.onStop("broker", func(context.Context) error {
			<-stuck
			return nil
		})
		began := time.Now()
		err := life.stop(10 * time.Second)
		assert.Equal(t, 10*time.Second, time.Since(began))
		assert.ErrorContains(t, err, "stop broker: not finished within 10s")
		<-closed // the steps after it had their turn
		close(stuck)
	})
}

func TestPartThatEndsByItselfIsReportedOnce(t *testing.T) {
	for name, returned := range map[string]error{
		"with an error":    errors.New("socket gone"),
		"without an error": nil,
	} {
		t.Run(name, func(t *testing.T) {
			life := newTestLifecycle()
			life.start("ingest", func(context.Context) error { return returned })
			err := <-life.Died()
			require.ErrorContains(t, err, "ingest ended by itself")
			if returned != nil {
				require.ErrorIs(t, err, returned)
			}
			assert.NoError(t, life.stop(time.Minute))
		})
	}
}

func TestWatchedChannelEndsTheProgram(t *testing.T) {
	life := newTestLifecycle()
	died := make(chan error, 1)
	life.watch("broker", died)
	died <- errors.New("listener closed")
	assert.EqualError(t, <-life.Died(), "broker ended by itself: listener closed")
	assert.NoError(t, life.stop(time.Minute))
}
