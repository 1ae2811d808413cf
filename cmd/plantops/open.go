package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/store"
)

// asServerUser is the remedy when this user may not do what the server's may.
const asServerUser = "run the command as the user that the server runs as, for instance: sudo -u plantops plantops status"

// operateWait is how long a command waits for a server that is just starting or stopping.
const operateWait = 5 * time.Second

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
	// Not by opening it: closing any descriptor of the file would end this process's locks on the database.
	err := unix.Access(cfg.StorePath(), unix.R_OK)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, withHint(fmt.Errorf("open database: there is none at %s", cfg.StorePath()),
			`"plantops serve" makes it; is this the right configuration? -c FILE or --data-dir DIR names another`)
	case errors.Is(err, fs.ErrPermission):
		return nil, kindOf(errUnauthorized, withHint(fmt.Errorf("open database %s: %w", cfg.StorePath(), err), asServerUser))
	case err != nil:
		return nil, fmt.Errorf("open database %s: %w", cfg.StorePath(), err)
	}
	return store.Open(ctx, store.Options{Path: cfg.StorePath(), Now: a.now, Log: slog.New(slog.DiscardHandler), ReadOnly: true})
}

// operate loads the configuration and calls do with the running server or, when none runs, with the data
// directory itself; that stays locked meanwhile, so that no server starts in between.
func (a *app) operate(ctx context.Context, do func(config.Config, operator) error) error {
	loaded, err := a.load()
	if err != nil {
		return err
	}
	cfg := loaded.Config
	server, lock, err := a.serverOrLock(ctx, cfg)
	if err != nil {
		return err
	}
	if server != nil {
		return do(cfg, server)
	}
	local, err := a.openBox(ctx, cfg)
	if err == nil {
		err = errors.Join(do(cfg, local), local.store.Close())
	}
	return errors.Join(err, lock.Release())
}

// serverOrLock returns the running server or, when there is none, the locked data directory.
func (a *app) serverOrLock(ctx context.Context, cfg config.Config) (*controlClient, *dirLock, error) {
	deadline := time.Now().Add(operateWait)
	for {
		server, err := dialControl(ctx, cfg.SocketPath())
		if err == nil || errors.Is(err, errUnauthorized) {
			return server, nil, err
		}
		if err := makeDataDir(cfg.DataDir); err != nil {
			return nil, nil, err
		}
		lock, err := acquireLock(ctx, cfg.DataDir, lockPoll)
		if locked := (*lockedError)(nil); !errors.As(err, &locked) {
			return nil, lock, err
		}
		outOfReach := len(cfg.SocketPath()) > maxSocketPathBytes
		if outOfReach || time.Now().After(deadline) {
			remedy := "it may be starting or stopping: try again in a moment"
			if outOfReach {
				remedy = "the path is too long for a unix socket: name data_dir (--data-dir) by a relative path"
			}
			return nil, nil, kindOf(errUnreachable, withHint(
				fmt.Errorf("%w, and does not answer at %s", err, cfg.SocketPath()), remedy))
		}
	}
}

// openBox opens a data directory that no server uses. The caller closes the store.
func (a *app) openBox(ctx context.Context, cfg config.Config) (*box, error) {
	db, err := store.Open(ctx, storeOptions(cfg, a.now, slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, err
	}
	authority, err := certs.Open(a.certsOptions(cfg))
	if err != nil && !errors.Is(err, certs.ErrNoAuthority) {
		return nil, errors.Join(err, db.Close())
	}
	b := a.newBox(cfg, db)
	b.authority = authority
	return b, nil
}

// makeDataDir creates the data directory. Others may enter it, for the CA certificate; the files in it
// have modes of their own.
func makeDataDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create data directory: %w", err)
	}
	return nil
}
