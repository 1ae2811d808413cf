// Package web is the HTTP listener: one for people and programs, with the gate before everything, and a second one for old firmware that
// registers over plain HTTP. What is served below a prefix is given to it.
//
//	web.go       Options, New, Run: listening, serving, stopping
//	routes.go    the order of what stands before the handlers, and the few pages of its own
//	register.go  the listener for old firmware, open while the pairing window is
//	limit.go     how many connections there may be
package web

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/plantops/plantops/web/gate"
)

// Mount is what answers the requests for a path and those below it.
type Mount struct {
	Prefix  string // such as /api, without a slash at the end; the handler sees the path with it
	Handler http.Handler
	// Role is who may pass; "": the handler asks gate.Of or gate.Need itself.
	Role gate.Role
	// MaxBodyBytes is how large the body of a request may be; 0 is 1 MiB.
	MaxBodyBytes int64
}

// Options say what is listened on and who answers.
type Options struct {
	Address  string      // host:port; must be set
	TLS      *tls.Config // nil: plain HTTP
	BasePath string      // such as /plantops, where a proxy serves others beside; "": none
	Gate     *gate.Gate  // must be set
	Mounts   []Mount
	// RegistrationAddress is where old firmware registers over plain HTTP while the pairing window is open, at Register; "": nowhere.
	RegistrationAddress string
	Register            http.Handler // sees POST /api/devices/register only
	CA                  func() []byte // certificate of the authority, PEM; nil: none
	Log                 *slog.Logger
}

// Timeouts of a request. A handler that streams lifts the one for writing with http.ResponseController.SetWriteDeadline, and sets its own.
const (
	headerTimeout = 5 * time.Second
	bodyTimeout   = 20 * time.Second
	writeTimeout  = 60 * time.Second
	idleTimeout   = 60 * time.Second
	maxHeader     = 16 << 10
	maxBody       = 1 << 20
)

// Server is the listener.
type Server struct {
	options  Options
	listener net.Listener
	http     *http.Server
}

// New binds the address; nobody is answered before Run. Who does not call Run calls Close.
func New(o Options) (*Server, error) {
	listener, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("listen for HTTP: %w", err)
	}
	s := &Server{options: o, listener: listener}
	s.http = &http.Server{Handler: s.routes(), ReadHeaderTimeout: headerTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader}
	return s, nil
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Run serves until ctx ends. It returns an error only when it ends by itself. It is called once.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.http.Close() })
	err := s.http.Serve(s.listener)
	if stop() {
		return err
	}
	return nil
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for _, m := range s.options.Mounts {
		h := m.Handler
		if m.Role != "" {
			h = gate.Need(m.Role, h)
		}
		mux.Handle(m.Prefix, h)
		mux.Handle(m.Prefix+"/", h)
	}
	return mux
}
