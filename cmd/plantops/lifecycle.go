package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/plantops/plantops/config"
)

// lifecycle stops what was started, last first, and notices when a part ends by itself.
// It is used by one goroutine.
type lifecycle struct {
	log   *slog.Logger
	steps []stopStep
	died  chan error
}

type stopStep struct {
	name string
	stop func(context.Context) error
}

func newLifecycle(log *slog.Logger) *lifecycle {
	return &lifecycle{log: log, died: make(chan error, 1)}
}

// onStop registers how the part that was just started is stopped.
func (l *lifecycle) onStop(name string, stop func(context.Context) error) {
	l.steps = append(l.steps, stopStep{name, stop})
}

// start runs a part until its turn to stop comes: then its context is cancelled and its return awaited.
// A part that returns before that is reported by Died.
func (l *lifecycle) start(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := run(ctx)
		if ctx.Err() == nil {
			l.ended(name, err)
			err = nil // told once
		}
		done <- err
	}()
	l.onStop(name, func(stopping context.Context) error {
		cancel()
		select {
		case err := <-done:
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		case <-stopping.Done():
			return stopping.Err()
		}
	})
}

// watch makes the end of a part that runs on its own goroutines the end of the program.
func (l *lifecycle) watch(name string, ended <-chan error) {
	l.start(name, func(ctx context.Context) error {
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return nil
		}
	})
}

func (l *lifecycle) ended(name string, err error) {
	if err == nil {
		err = errors.New("it returned without an error")
	}
	select {
	case l.died <- fmt.Errorf("%s ended by itself: %w", name, err):
	default: // another part was first; that one is the cause
	}
}

// Died yields the error of the first part that ended by itself.
func (l *lifecycle) Died() <-chan error { return l.died }

// stop runs every stop step, last first, within one deadline. Failing steps do not hold up the others.
// The step that the deadline finds running is named, and so are those that it left no time for.
func (l *lifecycle) stop(timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var errs []error
	for i := len(l.steps) - 1; i >= 0; i-- {
		step := l.steps[i]
		began := time.Now()
		done := make(chan error, 1)
		go func() { done <- step.stop(ctx) }()
		select {
		case err := <-done:
			if err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", step.name, err))
			}
			l.log.Debug("stopped", "part", step.name, "took", time.Since(began))
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("stop %s: not finished within %s of the order to stop", step.name, timeout))
		}
	}
	l.steps = nil
	return errors.Join(errs...)
}

// reloadConfig takes over what can change while the program runs, and names what cannot. A configuration
// or certificates that are wrong change nothing. Accounts need no reload: they are live at once.
func (s *service) reloadConfig() {
	notifyReloading(s.log)
	defer notify(s.log, daemon.SdNotifyReady)
	s.log.Info("reloading configuration")
	if _, err := s.server.ReloadCertificates(context.Background()); err != nil {
		s.log.Error("the certificates stay as they were", "err", err)
	}
	loaded, err := s.app.load()
	if err != nil {
		s.log.Error("the configuration stays as it was", "err", err)
		return
	}
	live, restart := config.Changes(s.loaded.Config, loaded.Config)
	if slices.Contains(live, "bridges") {
		if err := s.changeBridges(loaded); err != nil {
			s.log.Error("the configuration stays as it was", "err", err)
			return
		}
	}
	if err := setLevel(&s.level, loaded.Config.Log.Level); err != nil {
		s.log.Error("the configuration stays as it was", "err", err)
		return
	}
	// Keys that need a restart keep being named at each reload until it has come.
	s.loaded.Config.Log.Level = loaded.Config.Log.Level
	s.loaded.Config.Ingest.OfflineAfter = loaded.Config.Ingest.OfflineAfter
	s.server.SetOfflineAfter(loaded.Config.Ingest.OfflineAfter)
	for _, key := range live {
		s.log.Info("setting changed", "key", key)
	}
	for _, key := range restart {
		s.log.Warn("changed setting needs a restart", "key", key)
	}
	s.log.Info("configuration reloaded")
}

// changeBridges takes over the bridges of a new configuration.
func (s *service) changeBridges(loaded config.Loaded) error {
	if s.bridges == nil {
		return errors.New("bridges: this process is no broker")
	}
	if err := checkBridges(loaded); err != nil {
		return err
	}
	if err := s.bridges(s.loaded.Config, loaded.Config); err != nil {
		return err
	}
	s.loaded.Config.Bridges = loaded.Config.Bridges
	return nil
}
