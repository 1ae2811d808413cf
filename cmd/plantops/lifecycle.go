package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

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

// How often serve collects garbage, measured (amd64, 2 cores, QoS 1, TLS, as many readings as go through; the server's
// CPU µs per reading, and its largest resident memory):
//
//	GOGC       10 devices          1000 devices
//	  50   18.0 µs   34 MiB    28.0 µs   107 MiB
//	 100   13.0 µs   35 MiB    21.5 µs   136 MiB
//	 200   11.0 µs   43 MiB    18.9 µs   163 MiB
//	 400    9.7 µs   50 MiB    14.8 µs   239 MiB
//
// A box without load has 18 MiB with each of them. What lives is small beside what each batch leaves behind, so a heap of
// five times its live part is cheap, until connections make the live part large: then the limit takes over. With
// GOMEMLIMIT=100MiB (a Pi with 512 MiB has a little more) the last line is 11.3 µs, 55 MiB; 24.6 µs, 119 MiB.
const (
	gcPercent = 400
	// memoryShare of the machine's memory is where the collector begins to save memory instead of time; it is no limit
	// on what the program gets. A Pi Zero has 512 MiB.
	memoryShare = 4
)

// tuneMemory sets the garbage collector for a server, except where the environment does (GOGC, GOMEMLIMIT).
func tuneMemory(environ []string) {
	if !isSet(environ, "GOGC") {
		debug.SetGCPercent(gcPercent)
	}
	var machine unix.Sysinfo_t
	if !isSet(environ, "GOMEMLIMIT") && unix.Sysinfo(&machine) == nil {
		debug.SetMemoryLimit(int64(uint64(machine.Totalram) * uint64(machine.Unit) / memoryShare)) // their types differ between systems
	}
}

// isSet reports whether a variable has a value.
func isSet(environ []string, name string) bool {
	return slices.ContainsFunc(environ, func(variable string) bool {
		value, ok := strings.CutPrefix(variable, name+"=")
		return ok && value != ""
	})
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

const (
	// giveBackEvery is how often serve looks whether memory can be given back. When it is quiet it allocates less than quietBytes in
	// between, or a sixteenth of what is spare. From spareBytes on a collection is worth it.
	giveBackEvery = 3 * time.Second
	quietBytes    = 1 << 20
	spareBytes    = 3 << 20
)

// giveBackMemory is a part that gives memory back to the system when it is quiet after a storm: the collector keeps five times
// of what lives, and comes by itself when that is full. After 5,000 logins by TLS these are 100 MiB.
func giveBackMemory(ctx context.Context) error {
	tick := time.NewTicker(giveBackEvery)
	defer tick.Stop()
	before, again := readHeap(), false
	for given := before; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := readHeap()
		if spare := isSpare(before, now, given); spare || again {
			runtime.GC() // what lies in a pool goes with the second
			debug.FreeOSMemory()
			now = readHeap()
			given, again = now, spare // connections become quiet meanwhile, and let go of their stacks
		}
		before = now
	}
}

// heapState is what the runtime says of the heap: what was allocated since the start, what lived at the last collection, and
// what is in memory.
type heapState struct{ allocated, live, resident uint64 }

// isSpare reports whether the heap is larger than what lives in it, and hardly used. What was left when memory was given back
// last cannot be given back: it lies between what lives.
func isSpare(before, now, given heapState) bool {
	spare := max(now.live/8, spareBytes)
	if now.resident <= now.live+spare {
		return false
	}
	quiet := now.allocated-before.allocated < max((now.resident-now.live)/16, quietBytes)
	changed := now.resident > given.resident+spare || now.live+spare < given.live
	return quiet && changed
}

func readHeap() heapState {
	all := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(all)
	of := func(i int) uint64 { return all[i].Value.Uint64() }
	return heapState{of(0), of(1), of(2) + of(3) + of(4)}
}
