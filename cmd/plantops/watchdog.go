package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/plantops/plantops/ingest"
)

const (
	// probeEvery is how often the way of a message is proved. Real messages prove it too, and a probe is a commit of its
	// own: while they come, it runs only every probeAtLeast. On a box without any device it writes about 100 MB a day.
	probeEvery   = 10 * time.Second
	probeAtLeast = time.Minute
	probeRetry   = time.Second // after a probe that failed before its time was up
	// hopelessAfter is how long nothing may come through before the program ends, so that it is started again.
	hopelessAfter = time.Minute
	// progressPoll is how often ingestProgress looks.
	progressPoll = 100 * time.Millisecond
)

// prober sends a message through the broker and into the store and returns nil when it was acknowledged.
type prober interface {
	Probe(ctx context.Context) error
}

// endToEnd proves again and again that messages come through: published, committed, acknowledged. When one does not, it
// says so, and alive keeps the service manager from being told that all is well; systemd then ends the process with
// SIGABRT, whose stack traces tell why. When it lasts, the program ends by itself.
//
// One thing is no reason for either: that the store itself says why it cannot store (disk full, database locked). It is
// tried again all the time, ingest logs it, devices keep their readings, and a new process would have the same disk.
type endToEnd struct {
	probe prober
	stats func() ingest.Stats
	bound time.Duration // of one probe
	log   *slog.Logger

	fault atomic.Pointer[error] // what the last probe said
}

// run is the part. It returns an error when the outage is hopeless.
func (e *endToEnd) run(ctx context.Context) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	var o outage
	probed, passed := time.Now(), stored(e.stats())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		st := e.stats()
		var err error
		if st.CommitErr == nil && (stored(st) == passed || time.Since(probed) >= probeAtLeast) {
			err = within(ctx, e.bound, e.prove)
			if ctx.Err() != nil {
				return nil
			}
			probed, st = time.Now(), e.stats()
		}
		passed = stored(st)
		if st.CommitErr != nil {
			e.excuse(st.CommitErr)
			o = outage{}
			continue
		}
		switch o.next(err == nil, time.Now()) {
		case outageBegan:
			e.fault.Store(&err)
			e.log.Error("messages do not come through from the broker into the store", "err", err)
		case outageEnded:
			e.fault.Store(nil)
			e.log.Info("messages come through again", "took", o.took.Round(time.Millisecond))
		case outageHopeless:
			return fmt.Errorf("no message has come through from the broker into the store for %s: %w", o.took.Round(time.Second), err)
		}
	}
}

// prove probes until it succeeds once or ctx ends: a subscriber that is just connecting again is no outage.
func (e *endToEnd) prove(ctx context.Context) error {
	for {
		err := e.probe.Probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(probeRetry):
		}
	}
}

// excuse takes back a fault whose reason has become known.
func (e *endToEnd) excuse(reason error) {
	if e.fault.Swap(nil) != nil {
		e.log.Info("messages do not come through because the store cannot take them, another start would not help", "err", reason)
	}
}

// alive returns why messages do not come through, nil if they do as far as is known.
func (e *endToEnd) alive() error {
	if err := e.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// stored is how many messages ingest is done with.
func stored(st ingest.Stats) int64 { return st.Received - st.Pending }

// verdict is what an observation means.
type verdict uint8

const (
	noChange verdict = iota
	outageBegan
	outageEnded
	outageHopeless
)

// outage is a time in which messages do not come through. The zero outage is none.
type outage struct {
	since time.Time
	took  time.Duration
}

// next takes an observation into account.
func (o *outage) next(ok bool, at time.Time) verdict {
	if o.since.IsZero() {
		if ok {
			return noChange
		}
		*o = outage{since: at}
		return outageBegan
	}
	o.took = at.Sub(o.since)
	switch {
	case ok:
		o.since = time.Time{}
		return outageEnded
	case o.took >= hopelessAfter:
		return outageHopeless
	}
	return noChange
}

// ingestProgress is the prober for a broker that is another program: nothing is published there, but what has come from
// it must get stored.
type ingestProgress struct{ stats func() ingest.Stats }

// Probe returns when nothing is pending or something of it was stored.
func (p ingestProgress) Probe(ctx context.Context) error {
	tick := time.NewTicker(progressPoll)
	defer tick.Stop()
	before := p.stats()
	for st := before; st.Pending > 0 && stored(st) == stored(before); st = p.stats() {
		select {
		case <-ctx.Done():
			return errors.New("what was received does not get stored")
		case <-tick.C:
		}
	}
	return nil
}

// notify tells the service manager a state; without one it does nothing.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("cannot tell the service manager", "state", state, "err", err)
	}
}

// notifyReloading begins a reload; it ends with the next READY.
func notifyReloading(log *slog.Logger) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		log.Warn("cannot read the monotonic clock", "err", err)
		return
	}
	notify(log, fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000))
}

// watchdog returns a part that tells the service manager that alive answers, twice in each of its
// intervals; nil when it does not want to know.
func watchdog(log *slog.Logger, alive func(context.Context) error) (func(context.Context) error, error) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return nil, fmt.Errorf("read the watchdog interval of the service manager: %w", err)
	}
	if interval == 0 {
		return nil, nil
	}
	return func(ctx context.Context) error {
		tick := time.NewTicker(interval / 2)
		defer tick.Stop()
		for {
			if err := within(ctx, interval/2, alive); err != nil {
				log.Error("not well, the service manager is not told otherwise", "err", err)
			} else {
				notify(log, daemon.SdNotifyWatchdog)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	}, nil
}

func within(ctx context.Context, limit time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return do(ctx)
}
