package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

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
