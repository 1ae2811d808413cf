package web

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/plantops/plantops/web/gate"
)

// registrationPath is the one path of the second listener. Old firmware has it built in.
const registrationPath = "/api/devices/register"

// maxRegistrationBytes is what a registration may have; old firmware sends a hundred bytes.
const maxRegistrationBytes = 4 << 10

// registration is the listener for old firmware. The pairing window opens and closes it.
type registration struct {
	options Options

	mu      sync.Mutex
	handler http.Handler // nil: nothing is served yet
	server  *http.Server // nil: closed
	over    bool         // it opens no more
	serving sync.WaitGroup
}

// newRegistration makes the pairing window open and close the listener. It binds the address once, so that a port that is not free is known at
// the start.
func newRegistration(o Options) (*registration, error) {
	probe, err := net.Listen("tcp", o.RegistrationAddress)
	if err != nil {
		return nil, fmt.Errorf("listen for registrations: %w", err)
	}
	if err := probe.Close(); err != nil {
		return nil, err
	}
	r := &registration{options: o}
	o.Gate.Pairing.Opening, o.Gate.Pairing.Closed = r.open, r.close
	return r, nil
}

// serve says who answers, from now on.
func (r *registration) serve(h http.Handler) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handler = h
}

func (r *registration) open() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over || r.handler == nil {
		return http.ErrServerClosed
	}
	listener, err := net.Listen("tcp", r.options.RegistrationAddress)
	if err != nil {
		return fmt.Errorf("listen for registrations: %w", err)
	}
	server := newHTTP(r.handler, r.options.Log)
	server.SetKeepAlivesEnabled(false)
	r.server = server
	r.options.Log.Info("old firmware may register", "listener", "registration", "address", listener.Addr().String())
	r.serving.Go(func() {
		err := server.Serve(limit(listener, nil))
		if r.closed(server) {
			return
		}
		r.options.Log.Error("the listener for registrations ended by itself", "err", err)
	})
	return nil
}

// closed reports whether a server is not to serve any more.
func (r *registration) closed(server *http.Server) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.server != server
}

// close ends the listener; who is being answered has a moment.
func (r *registration) close() {
	r.mu.Lock()
	server := r.server
	r.server = nil
	r.mu.Unlock()
	if server == nil {
		return
	}
	r.serving.Go(func() {
		grace, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if server.Shutdown(grace) != nil {
			_ = server.Close() // they had their time
		}
		r.options.Log.Info("old firmware may not register any more", "listener", "registration")
	})
}

// stop returns when nobody is served any more, and nobody will be. The window is closed.
func (r *registration) stop() {
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	r.close()
	r.serving.Wait()
}

// guardedRegistration leaves one path of all, and asks nobody who he is.
func (s *Server) guardedRegistration(next http.Handler) http.Handler {
	g, mux := s.options.Gate, http.NewServeMux()
	mux.Handle("POST "+registrationPath, gate.Bodies(maxRegistrationBytes, s.options.bodyTimeout, next))
	mux.HandleFunc("/", notFound)
	return s.recovering(gate.Headers(gate.Bodies(maxRegistrationBytes, s.options.bodyTimeout, g.Direct(g.Hosts(gate.Paths(g.Origins(mux)))))))
}
