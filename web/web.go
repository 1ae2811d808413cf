// Package web is the HTTP listener: one for people and programs, with the gate before everything, and a second one for old firmware that
// registers over plain HTTP. What is served below a prefix is given to it.
//
//	web.go       Options, New, Run: listening, serving, stopping
//	routes.go    the order of what stands before the handlers, and the few paths of its own
//	page.go      the pages without a template: what there is, logging in
//	register.go  the listener for old firmware, open while the pairing window is
//	limit.go     how many connections there may be
package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
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
	Mounts   []Mount     // one with the prefix "" takes all that nobody else does, in place of the page that is built in
	// Proxies, and this machine itself, may have as many connections as there may be at all.
	Proxies []netip.Prefix
	// RegistrationAddress is where old firmware registers over plain HTTP while the pairing window is open: of all that is mounted it
	// reaches POST /api/devices/register. "": nowhere.
	RegistrationAddress string
	CA                  func() []byte // certificates of the authority, PEM, for who is to trust it; nil: none
	Log                 *slog.Logger

	bodyTimeout time.Duration // 0 is bodyTimeout
}

// Bounds on a request. A handler that streams lifts the deadline for writing with http.ResponseController.SetWriteDeadline, and sets its own.
const (
	headerTimeout = 5 * time.Second
	bodyTimeout   = 20 * time.Second
	writeTimeout  = time.Minute
	idleTimeout   = time.Minute

	maxHeaderBytes = 16 << 10
	maxBodyBytes   = 1 << 20
	maxLoginBytes  = 8 << 10
	maxStreams     = 100 // of one connection of HTTP/2
)

const (
	// stopPatience is how long a request may go on after the order to stop; then its context ends, and after stopTimeout its connection.
	stopPatience = 250 * time.Millisecond
	stopTimeout  = 2 * time.Second
)

// Server is the listener.
type Server struct {
	options      Options
	listener     net.Listener
	http         *http.Server
	end          context.CancelFunc // of the contexts of all requests
	registration *registration      // nil: there is none
}

// New binds the address; nobody is answered before Run. Who does not call Run calls Close.
func New(o Options) (*Server, error) {
	if o.bodyTimeout == 0 {
		o.bodyTimeout = bodyTimeout
	}
	listener, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("listen for HTTP: %w", err)
	}
	s := &Server{options: o, listener: limit(listener, o.Proxies)}
	if o.RegistrationAddress != "" {
		if s.registration, err = newRegistration(o); err != nil {
			return nil, errors.Join(err, listener.Close())
		}
	}
	s.http = newHTTP(nil, o.Log)
	s.http.TLSConfig = o.TLS
	// A connection that takes nothing any more has no other end: the deadlines of HTTP/2 are those of streams.
	s.http.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: maxStreams, WriteByteTimeout: writeTimeout, SendPingTimeout: idleTimeout}
	var base context.Context
	base, s.end = context.WithCancel(context.Background())
	s.http.BaseContext = func(net.Listener) context.Context { return base }
	return s, nil
}

func newHTTP(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // what strangers get wrong in a handshake
	}
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Mount adds what is served, before Run: what needs parts that start later.
func (s *Server) Mount(more ...Mount) { s.options.Mounts = append(s.options.Mounts, more...) }

// Close gives the address up; for who does not call Run. After Run it does nothing.
func (s *Server) Close() error {
	s.end()
	if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Run serves until ctx ends, and returns when nobody is served any more: what is being answered has a moment to end, streams are ended. It
// returns an error only when it ends by itself. It is called once.
func (s *Server) Run(ctx context.Context) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		s.shutDown()
	})
	defer s.end()
	paths := s.paths()
	s.http.Handler = s.guarded(paths)
	if s.registration != nil {
		s.registration.serve(s.guardedRegistration(paths))
	}
	var err error
	if s.options.TLS != nil {
		err = s.http.ServeTLS(s.listener, "", "")
	} else {
		err = s.http.Serve(s.listener)
	}
	if stop() {
		return err // it ended before it was told to
	}
	<-stopped
	return nil
}

func (s *Server) shutDown() {
	impatient := time.AfterFunc(stopPatience, s.end)
	defer impatient.Stop()
	s.options.Gate.Pairing.Close()
	var registration sync.WaitGroup
	defer registration.Wait()
	if s.registration != nil {
		registration.Go(s.registration.stop)
	}
	grace, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if s.http.Shutdown(grace) != nil {
		_ = s.http.Close() // they were asked
	}
}
