package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"

	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/store"
)

// Hints returns what a person can do about err: what was attached to it on its way, then what is known
// about its kind. It is empty when nothing is known.
func Hints(err error) []string {
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
	var locked *LockedError
	var database *DatabaseLockedError
	switch {
	case errors.As(err, &database):
		return "stop it, or give this one another store.path (PLANTOPS_STORE_PATH): two servers on one database lose readings of each other"
	case errors.As(err, &locked) && locked.PID == 0:
		return "stop it, or give this one another data_dir (--data-dir)"
	case errors.As(err, &locked):
		return fmt.Sprintf("stop it, or give this one another data_dir (--data-dir); who it is: ps -p %d", locked.PID)
	case errors.Is(err, ErrNoWeb):
		return "set http.address, or find out in the log of the server why it is not served"
	case errors.Is(err, store.ErrInDoubt): // also with what stands in the way of finding out
		return "it may be stored: look whether it is before you do it again; the disk of the database fails, see the log of the kernel"
	case errors.Is(err, store.ErrNewerSchema):
		return "start the newer version of plantops, or restore a backup that this version made"
	case errors.Is(err, store.ErrForeign):
		return "store.path (PLANTOPS_STORE_PATH) names a file that is not ours: name another"
	case errors.Is(err, store.ErrDamaged):
		return "restore a backup; to start empty, move the file and its -wal file away first: what is in it may still be saved"
	case errors.Is(err, certs.ErrNoAuthority):
		return `create one with "plantops certs init"`
	case errors.Is(err, certs.ErrKeyInside):
		return "keep only the certificates in it: openssl x509 -in FILE -out NEW; a key that others have seen is no secret any more: make another"
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

// ListenHints adds to each address that could not be bound which setting it comes from. settings are keys of the
// configuration by port, "1883": it is not worth resolving names again.
func ListenHints(err error, settings map[string]string) error {
	var found []string
	eachError(err, func(e error) {
		op, ok := e.(*net.OpError)
		if !ok || op.Addr == nil {
			return
		}
		_, port, _ := net.SplitHostPort(op.Addr.String())
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
	return WithHint(err, found...)
}
