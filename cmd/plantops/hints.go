package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"syscall"

	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/store"
)

// hints returns what a person can do about err: what was attached to it on its way, then what is known
// about its kind.
func hints(err error) []string {
	var found []string
	eachError(err, func(e error) {
		if h, ok := e.(hintError); ok {
			found = append(found, h.hints...)
		}
	})
	if len(found) > 0 {
		return found
	}
	if hint := kindHint(err); hint != "" {
		return []string{hint}
	}
	return nil
}

func kindHint(err error) string {
	var locked *lockedError
	switch {
	case errors.As(err, &locked) && locked.pid == 0:
		return "stop it, or give this one another data_dir (--data-dir)"
	case errors.As(err, &locked):
		return fmt.Sprintf("stop it, or give this one another data_dir (--data-dir); who it is: ps -p %d", locked.pid)
	case errors.Is(err, store.ErrNewerSchema):
		return "start the newer version of plantops, or restore a backup that this version made"
	case errors.Is(err, store.ErrForeign):
		return "store.path (PLANTOPS_STORE_PATH) names a file that is not ours: name another"
	case errors.Is(err, store.ErrDamaged):
		return "restore a backup; to start empty, move the file and its -wal file away first: what is in it may still be saved"
	case errors.Is(err, certs.ErrNoAuthority):
		return `create one with "plantops certs init"`
	case errors.Is(err, certs.ErrClock):
		return "set the clock, for instance: sudo timedatectl set-ntp true"
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return "data_dir (PLANTOPS_DATA_DIR, --data-dir) must be a directory that this user may write in"
	case errors.Is(err, store.ErrLocked):
		return "close the other program that has the database open, then try again"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, store.ErrFull):
		return "the disk is full: make room, then try again"
	}
	return ""
}

// eachError calls visit with err and everything that it wraps.
func eachError(err error, visit func(error)) {
	if err == nil {
		return
	}
	visit(err)
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		eachError(e.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			eachError(inner, visit)
		}
	}
}

// listenHints adds to each address that could not be bound which setting it comes from.
func listenHints(cfg config.Config, err error) error {
	settings := map[string]string{} // by port: it is not worth resolving names again
	l := cfg.Listeners
	for _, at := range []struct {
		enabled      bool
		address, key string
	}{
		{l.TCP.Enabled, l.TCP.Address, "listeners.tcp.address"},
		{l.TLS.Enabled, l.TLS.Address, "listeners.tls.address"},
		{l.WebSocket.Enabled, l.WebSocket.Address, "listeners.websocket.address"},
	} {
		if _, port, err := net.SplitHostPort(at.address); err == nil && at.enabled {
			settings[port] = at.key
		}
	}
	var found []string
	eachError(err, func(e error) {
		op, ok := e.(*net.OpError)
		if !ok || op.Addr == nil {
			return
		}
		port := strconv.Itoa(boundPort(op.Addr))
		key := settings[port]
		switch {
		case key == "":
		case errors.Is(op, syscall.EADDRINUSE):
			found = append(found, fmt.Sprintf("port %s is used by another program; which one: sudo ss -ltnp 'sport = :%s'; stop it, or change %s", port, port, key))
		case errors.Is(op, syscall.EADDRNOTAVAIL):
			found = append(found, fmt.Sprintf("this machine does not have the address in %s", key))
		case errors.Is(op, fs.ErrPermission):
			found = append(found, fmt.Sprintf("ports below 1024 need root: change %s", key))
		}
	})
	if len(found) == 0 {
		return err
	}
	return withHint(err, found...)
}
