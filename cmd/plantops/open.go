package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/ingest/source"
	"github.com/plantops/plantops/store"
)

const (
	// operateWait is how long a command waits for a server that is just starting or stopping.
	operateWait = 5 * time.Second
	// operatePoll is how long it waits for the lock before it looks for a server again.
	operatePoll = 50 * time.Millisecond
)

// read loads the configuration, opens the database for reading, server or not, and calls do.
func (a *app) read(ctx context.Context, do func(config.Config, *store.Store) error) error {
	loaded, err := a.load()
	if err != nil {
		return err
	}
	cfg := loaded.Config
	db, err := a.openReadOnly(ctx, cfg)
	if err != nil {
		return err
	}
	defer db.Close() // read only: nothing that could get lost
	return do(cfg, db)
}

func (a *app) openReadOnly(ctx context.Context, cfg config.Config) (*store.Store, error) {
	if err := readable(cfg); err != nil {
		return nil, err
	}
	return store.Open(ctx, store.Options{Path: cfg.StorePath(), Now: a.now, Log: slog.New(slog.DiscardHandler), ReadOnly: true})
}

// operate loads the configuration and calls do with the running server or, when none runs, with the data
// directory itself; that stays locked meanwhile, so that no server starts in between.
func (a *app) operate(ctx context.Context, do func(config.Config, control.Operator) error) error {
	loaded, err := a.load()
	if err != nil {
		return err
	}
	cfg := loaded.Config
	sources, err := compileSources(loaded)
	if err != nil {
		return err
	}
	server, lock, err := a.serverOrLock(ctx, cfg)
	if err != nil {
		return err
	}
	if server != nil {
		return do(cfg, server)
	}
	return errors.Join(a.operateHere(ctx, cfg, sources, do), lock.Release())
}

// operateExisting is operate, but makes no database where nobody ran serve: most likely the folder or the configuration is the
// wrong one, and what would be made there is lost on whoever runs the server.
func (a *app) operateExisting(ctx context.Context, do func(config.Config, control.Operator) error) error {
	loaded, err := a.load()
	if err != nil {
		return err
	}
	// Not by opening it: closing any descriptor of the file would end this process's locks on the database.
	if err := unix.Access(loaded.Config.StorePath(), unix.F_OK); errors.Is(err, fs.ErrNotExist) && !served(ctx, loaded.Config) {
		return noDatabase(loaded.Config)
	}
	return a.operate(ctx, do)
}

// served reports whether a server has the data directory, also one that is starting or that this user may not ask.
func served(ctx context.Context, cfg config.Config) bool {
	if _, err := control.Dial(ctx, cfg.SocketPath()); err == nil || errors.Is(err, control.ErrUnauthorized) {
		return true
	}
	if !exists(filepath.Join(cfg.DataDir, "plantops.lock")) {
		return false
	}
	lock, err := control.AcquireLock(ctx, cfg.DataDir, 0)
	if err != nil {
		return true
	}
	_ = lock.Release()
	return false
}

// noDatabase is the error of commands that need one.
func noDatabase(cfg config.Config) error {
	return control.WithHint(fmt.Errorf("open database: there is none at %s", cfg.StorePath()),
		`"plantops serve" makes it; is this the right configuration? -c FILE or --data-dir DIR names another`)
}

// serverOrLock returns the running server or, when there is none, the locked data directory.
func (a *app) serverOrLock(ctx context.Context, cfg config.Config) (*control.Client, *control.Lock, error) {
	deadline := time.Now().Add(operateWait)
	for {
		server, err := control.Dial(ctx, cfg.SocketPath())
		if err == nil || errors.Is(err, control.ErrUnauthorized) {
			return server, nil, err
		}
		if err := makeDataDir(cfg.DataDir); err != nil {
			return nil, nil, err
		}
		lock, err := control.AcquireLock(ctx, cfg.DataDir, operatePoll)
		if locked := (*control.LockedError)(nil); !errors.As(err, &locked) {
			return nil, lock, err
		}
		outOfReach := len(cfg.SocketPath()) > control.MaxSocketPathBytes
		if outOfReach || time.Now().After(deadline) {
			remedy := "it may be starting or stopping: try again in a moment"
			if outOfReach {
				remedy = "the path is too long for a unix socket: name data_dir (--data-dir) by a relative path"
			}
			return nil, nil, control.KindOf(control.ErrUnreachable, control.WithHint(
				fmt.Errorf("%w, and does not answer at %s", err, cfg.SocketPath()), remedy))
		}
	}
}

// operateHere calls do with a data directory that no server uses.
func (a *app) operateHere(ctx context.Context, cfg config.Config, sources *source.Set, do func(config.Config, control.Operator) error) error {
	lock, err := control.AcquireDatabase(ctx, cfg.StorePath(), lockWait)
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, storeOptions(cfg, a.now, slog.New(slog.DiscardHandler)))
	if err != nil {
		return errors.Join(err, lock.Release())
	}
	o := a.controlOptions(cfg, db)
	o.Sources = sources
	o.Authority, err = certs.Open(a.certsOptions(cfg))
	if errors.Is(err, certs.ErrNoAuthority) {
		o.Authority, err = nil, nil
	}
	if err == nil {
		err = do(cfg, control.New(o))
	} else {
		err = certificateError(err)
	}
	return errors.Join(err, db.Close(), lock.Release())
}

// makeDataDir creates the data directory. Others may enter it, for the CA certificate; the files in it
// have modes of their own.
func makeDataDir(dir string) error {
	existing := filepath.Clean(dir)
	var made []string // from the inside out
	for !exists(existing) && existing != filepath.Dir(existing) {
		made = append(made, existing)
		existing = filepath.Dir(existing)
	}
	err := os.MkdirAll(dir, 0o755)
	for _, path := range made {
		if err == nil {
			err = control.GiveToOwnerOf(existing, path)
		}
	}
	if err != nil {
		return fmt.Errorf("create data directory: %w", err)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// runningServer is the server that runs in the data directory. Without one the error is ErrUnreachable.
func runningServer(ctx context.Context, cfg config.Config) (*control.Client, error) {
	server, err := control.Dial(ctx, cfg.SocketPath())
	if err == nil || errors.Is(err, control.ErrUnauthorized) {
		return server, err
	}
	return nil, control.KindOf(control.ErrUnreachable, control.WithHint(fmt.Errorf("no server is running in %s", cfg.DataDir), `start it with "plantops serve"`))
}
