package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plantops/plantops/alert"
	"github.com/plantops/plantops/alert/notify"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/backup"
	"github.com/plantops/plantops/store/people"
)

// MaxSocketPathBytes is what fits into a unix socket's address on Linux, see unix(7).
const MaxSocketPathBytes = 107

// Socket is the control socket: HTTP with JSON on a unix socket in the data directory, so that whoever may write
// there may give orders, and nobody else. It is private to one version of this program.
type Socket struct {
	listener net.Listener
	server   *http.Server
}

// Listen makes the socket at path, for orders to o; nobody is answered before Run. The caller holds the lock of the data
// directory, so a socket that is there already was left by a server that is gone.
func Listen(path string, o Operator, log *slog.Logger) (*Socket, error) {
	listener, err := listen(path)
	if err != nil {
		return nil, err
	}
	return &Socket{listener, &http.Server{
		Handler:           handler(o),
		ReadHeaderTimeout: 5 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}}, nil
}

func listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove stale control socket: %w", err)
	}
	// Not by chmod afterwards: who connects before it stays connected.
	defer unix.Umask(unix.Umask(0o177))
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	return listener, nil
}

// Run obeys orders until ctx ends, and then removes the socket. An order that is being obeyed has a second to finish. It
// returns an error only when it ends by itself. It is called once.
func (s *Socket) Run(ctx context.Context) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if s.server.Shutdown(grace) != nil {
			s.server.Close()
		}
	})
	err := s.server.Serve(s.listener)
	if stop() {
		return err // it ended before it was told to
	}
	<-stopped
	return nil
}

// idList is the body of requests about quarantined messages; no ids means all.
type idList struct {
	IDs []int64 `json:"ids"`
}

// deviceRequest is the body of requests about a device. Its id may be anything, also "..", until the store has judged it.
type deviceRequest struct {
	ID string `json:"id"`
}

// userRequest is the body of requests about a user, or a device with topics of its own; what a request does not need is empty.
type userRequest struct {
	Name      string        `json:"name"`
	Publish   []string      `json:"publish,omitempty"`
	Subscribe []string      `json:"subscribe,omitempty"`
	Admin     bool          `json:"admin,omitempty"`
	WebRole   store.WebRole `json:"web_role,omitempty"`
	Password  string        `json:"password,omitempty"`
	Hash      string        `json:"hash,omitempty"`
}

// sessionRequest is the body of requests about a session.
type sessionRequest struct {
	Client string `json:"client"`
}

// retainedRequest is the body of requests about retained messages.
type retainedRequest struct {
	Filter string `json:"filter"`
	Limit  int    `json:"limit,omitempty"`
}

type secretReply struct {
	Secret string `json:"secret"`
}

type countReply struct {
	Count int64 `json:"count"`
}

func handler(o Operator) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, do func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			reply, err := do(r)
			answer(w, reply, err)
		})
	}
	handle("GET /status", func(r *http.Request) (any, error) { return o.Status(r.Context()) })
	handle("GET /contact", func(r *http.Request) (any, error) { return o.Contact(r.Context()) })
	handle("GET /unread", func(r *http.Request) (any, error) { return o.Unread(r.Context()) })
	handle("GET /refusals", func(r *http.Request) (any, error) { return o.Refusals(r.Context()) })
	handle("POST /probe", func(r *http.Request) (any, error) { return struct{}{}, o.Probe(r.Context()) })
	handle("POST /pass", func(r *http.Request) (any, error) { return o.Pass(r.Context()) })
	handle("GET /sessions", func(r *http.Request) (any, error) { return o.Sessions(r.Context()) })
	handle("POST /sessions/end", func(r *http.Request) (any, error) {
		session, err := body[sessionRequest](r)
		if err != nil {
			return nil, err
		}
		return struct{}{}, o.EndSession(r.Context(), session.Client)
	})
	handle("POST /retained/list", func(r *http.Request) (any, error) {
		which, err := body[retainedRequest](r)
		if err != nil {
			return nil, err
		}
		return o.Retained(r.Context(), which.Filter, which.Limit)
	})
	handle("POST /retained/clear", func(r *http.Request) (any, error) {
		which, err := body[retainedRequest](r)
		if err != nil {
			return nil, err
		}
		n, err := o.ClearRetained(r.Context(), which.Filter)
		return countReply{n}, err
	})
	handle("POST /devices/add", func(r *http.Request) (any, error) {
		device, err := body[deviceRequest](r)
		if err != nil {
			return nil, err
		}
		secret, err := o.AddDevice(r.Context(), device.ID)
		return secretReply{secret}, err
	})
	handle("POST /devices/add-other", func(r *http.Request) (any, error) {
		device, err := body[userRequest](r)
		if err != nil {
			return nil, err
		}
		secret, err := o.AddOtherDevice(r.Context(), device.Name, device.Publish, device.Subscribe)
		return secretReply{secret}, err
	})
	handle("POST /devices/rotate", func(r *http.Request) (any, error) {
		device, err := body[deviceRequest](r)
		if err != nil {
			return nil, err
		}
		secret, err := o.RotateDevice(r.Context(), device.ID)
		return secretReply{secret}, err
	})
	handle("POST /devices/remove", func(r *http.Request) (any, error) {
		device, err := body[deviceRequest](r)
		if err != nil {
			return nil, err
		}
		return struct{}{}, o.RemoveDevice(r.Context(), device.ID)
	})
	handle("POST /devices/purge", func(r *http.Request) (any, error) {
		device, err := body[deviceRequest](r)
		if err != nil {
			return nil, err
		}
		n, err := o.PurgeDevice(r.Context(), device.ID)
		return countReply{n}, err
	})
	handleCorrections(o, handle)
	handle("POST /users/add", func(r *http.Request) (any, error) {
		user, err := body[userRequest](r)
		if err != nil {
			return nil, err
		}
		return struct{}{}, o.AddUser(r.Context(), store.NewUser(user))
	})
	handle("POST /users/passwd", func(r *http.Request) (any, error) {
		user, err := body[userRequest](r)
		if err != nil {
			return nil, err
		}
		return struct{}{}, o.SetPassword(r.Context(), user.Name, user.Password)
	})
	handle("POST /users/remove", func(r *http.Request) (any, error) {
		user, err := body[userRequest](r)
		if err != nil {
			return nil, err
		}
		return struct{}{}, o.RemoveUser(r.Context(), user.Name)
	})
	handleWeb(o, handle)
	handle("POST /certificates/reload", func(r *http.Request) (any, error) {
		ended, err := o.ReloadCertificates(r.Context())
		return countReply{ended}, err
	})
	handle("POST /quarantine/replay", func(r *http.Request) (any, error) {
		list, err := body[idList](r)
		if err != nil {
			return nil, err
		}
		return o.ReplayQuarantine(r.Context(), list.IDs)
	})
	handle("POST /quarantine/purge", func(r *http.Request) (any, error) {
		list, err := body[idList](r)
		if err != nil {
			return nil, err
		}
		n, err := o.PurgeQuarantine(r.Context(), list.IDs)
		return countReply{n}, err
	})
	handle("POST /history/import", func(r *http.Request) (any, error) {
		history, err := body[History](r)
		if err != nil {
			return nil, err
		}
		return o.ImportHistory(r.Context(), history)
	})
	handle("POST /history/place", func(r *http.Request) (any, error) {
		place, err := body[HistoryPlace](r)
		if err != nil {
			return nil, err
		}
		place.Text, err = o.HistoryPlace(r.Context(), place.Key)
		return place, err
	})
	handle("GET /retention", func(r *http.Request) (any, error) { return o.Retention(r.Context()) })
	handle("POST /retention/confirm", func(r *http.Request) (any, error) {
		seen, err := body[Retention](r)
		if err != nil {
			return nil, err
		}
		return struct{}{}, o.ConfirmRetention(r.Context(), seen)
	})
	handleAlerts(o, handle)
	handle("POST /backup/note", func(r *http.Request) (any, error) {
		made, err := body[backup.Entry](r)
		if err != nil {
			return nil, err
		}
		return struct{}{}, o.NoteBackup(r.Context(), made)
	})
	return mux
}

func body[T any](r *http.Request) (content T, err error) {
	if err = json.NewDecoder(r.Body).Decode(&content); err != nil {
		err = fmt.Errorf("read the request: %w", err)
	}
	return content, err
}

// socketError is an error on its way over the socket. Kind brings those across that callers look for.
type socketError struct {
	Text string `json:"error"`
	Kind string `json:"kind,omitempty"`
}

// kindInDoubt goes before all others: the cause is wrapped beside it.
const kindInDoubt = "in_doubt"

// socketKinds names the errors that keep their identity on the way.
func socketKinds() map[string]error {
	return map[string]error{
		"exists": store.ErrExists, "not_found": store.ErrNotFound, "other_role": store.ErrOtherRole, "invalid_id": store.ErrInvalidID,
		"invalid_filter": store.ErrInvalidFilter, "invalid_password": store.ErrInvalidPassword,
		"nothing_to_confirm": ErrNothingToConfirm, "full": store.ErrFull, "locked": store.ErrLocked, kindInDoubt: store.ErrInDoubt,
		"no_broker": ErrNoBroker, "no_web": ErrNoWeb, "token_exists": people.ErrExists, "no_token": people.ErrNotFound,
		"token_name": people.ErrInvalidName, "role": people.ErrInvalidRole, "many": people.ErrMany,
		"no_alert": alert.ErrNotFound, "no_channel": notify.ErrNoChannel,
	}
}

func answer(w http.ResponseWriter, reply any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		failed := socketError{Text: err.Error()}
		for kind, sentinel := range socketKinds() {
			if errors.Is(err, sentinel) && failed.Kind != kindInDoubt {
				failed.Kind = kind
			}
		}
		reply = failed
		w.WriteHeader(http.StatusUnprocessableEntity)
	}
	// The other side is gone if this fails: nobody is left to tell.
	_ = json.NewEncoder(w).Encode(reply)
}
