// Package api is the HTTP API below /api: the one of the old system with its names, shapes and status codes, and what is new. It knows
// who asks from a function that it is given, and knows no listener, no cookie and no page.
//
//	api.go        Options, and the handler: correlation ids, 404 and 405
//	operation.go  one way to ask: who may, parameters, body, answer, and what of it stands in the description
//	problem.go    errors as application/problem+json (RFC 9457)
//	routes.go     all operations
//	system.go     health, ready, status, the equation
//	devices.go    devices, and what one device last said
//	register.go   devices that register by themselves
//	plants.go     plants, and their thresholds
//	records.go    readings as the old API has them: one record a message
//	check.go      the health check by rules
//	readings.go   readings and what they come to, as JSON or CSV, as a stream
//	garden.go     zones, notes, assignments
//	orders.go     quarantine, calibrations, voided ranges, derived metrics
//	people.go     accounts and tokens
//	document.go   the description of it all, for programs and for people
package api

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/garden"
	"github.com/plantops/plantops/store/people"
)

// Prefix is where the API is.
const Prefix = "/api"

// Server is what of a running server is asked and told; *control.Server is one.
type Server interface {
	Status(ctx context.Context) (control.Status, error)
	Contact(ctx context.Context) (control.Contact, error)
	Parts(ctx context.Context) (database, mqtt error)
	OfflineAfter() time.Duration
	LastMessage(device string) (control.LastMessage, bool)
	RegisterDevice(ctx context.Context, r garden.Registration) (device, secret string, err error)
	AddDevice(ctx context.Context, id string) (secret string, err error)
	RotateDevice(ctx context.Context, id string) (secret string, err error)
	RemoveDevice(ctx context.Context, id string) error
	PurgeDevice(ctx context.Context, id string) (int64, error)
	AddUser(ctx context.Context, u store.NewUser) error
	SetPassword(ctx context.Context, name, password string) error
	RemoveUser(ctx context.Context, name string) error
	ReplayQuarantine(ctx context.Context, ids []int64) (control.Replayed, error)
	PurgeQuarantine(ctx context.Context, ids []int64) (int64, error)
	Calibrate(ctx context.Context, c control.Calibration) (control.Calibration, error)
	Void(ctx context.Context, v control.Void) (control.Void, error)
	Unvoid(ctx context.Context, id int64) error
	Derive(ctx context.Context, formula string) (control.Derived, error)
	RemoveDerived(ctx context.Context, name string) error
}

// Options are what the API is made of. All must be set.
type Options struct {
	Store  *store.Store
	Server Server
	// Who is the account or token that a request comes from, and what it may do; false: nobody is known.
	Who func(context.Context) (name string, role people.Role, known bool)
	// Pairing reports whether devices may register by themselves now.
	Pairing func() bool
	Version string
	Now     func() time.Time
	Log     *slog.Logger
}

// API answers requests below Prefix. It is safe for concurrent use.
type API struct {
	Options
	heavy   chan struct{} // one for each answer that reads much
	streams chan struct{} // one for each that is written as it is read: as slowly as its client takes it
	routes  func() *routes
	admins  sync.Mutex   // is held from the look for another admin to the change
	given   atomic.Int64 // UTC ms, when memory was given back behind a description
}

// How many answers read much at once. More wait, for so long.
const (
	maxHeavy   = 4
	maxStreams = 4
	heavyWait  = 10 * time.Second
)

// New returns the API. Nothing is made before the first request: a box that nobody asks pays nothing.
func New(o Options) *API {
	a := &API{Options: o, heavy: make(chan struct{}, maxHeavy), streams: make(chan struct{}, maxStreams)}
	a.routes = sync.OnceValue(a.build)
	return a
}

// correlationHeader bears what a request is found by in logs. Who asks may give it.
const correlationHeader = "X-Correlation-ID"

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set(correlationHeader, correlation(r.Header.Get(correlationHeader)))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	mux := a.routes().mux
	handler, pattern := mux.Handler(r)
	switch {
	case r.URL.Path != Prefix+"/" && strings.HasSuffix(r.URL.Path, "/") && !strings.HasSuffix(r.URL.Path, "//"):
		short := strings.TrimSuffix(r.URL.EscapedPath(), "/")
		to := "../" + short[strings.LastIndex(short, "/")+1:]
		if r.URL.RawQuery != "" {
			to += "?" + r.URL.RawQuery
		}
		h.Set("Location", to) // relative: below what path the API is for who asks is not known here
		w.WriteHeader(http.StatusTemporaryRedirect)
	case pattern == "":
		a.refuse(w, r, handler)
	default:
		mux.ServeHTTP(w, r)
	}
}

// correlation is an id that was given, if it may be echoed, or a new one.
func correlation(given string) string {
	strange := func(c rune) bool { return c <= ' ' || c > '~' }
	if given == "" || len(given) > 128 || strings.ContainsFunc(given, strange) {
		return rand.Text()
	}
	return given
}

// refuse says in our form what the router says in its own: that there is no such path, or not this method.
func (a *API) refuse(w http.ResponseWriter, r *http.Request, says http.Handler) {
	said := &onlyHeader{header: http.Header{}}
	says.ServeHTTP(said, r)
	if said.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", said.header.Get("Allow"))
		problem(w, said.status, "this path does not know "+r.Method+"; it knows "+said.header.Get("Allow"))
		return
	}
	problem(w, http.StatusNotFound, "there is no such path in the API; all are listed at "+Prefix+"/docs")
}

// onlyHeader takes an answer without its body.
type onlyHeader struct {
	header http.Header
	status int
}

func (o *onlyHeader) Header() http.Header         { return o.header }
func (o *onlyHeader) WriteHeader(status int)      { o.status = status }
func (o *onlyHeader) Write(b []byte) (int, error) { return len(b), nil }

// read waits until there is a slot, and calls do.
func (a *API) read(ctx context.Context, slots chan struct{}, do func() error) error {
	late := time.NewTimer(heavyWait)
	defer late.Stop()
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
		return do()
	case <-late.C:
		return refuse(http.StatusServiceUnavailable, "too much is being read at once: try again in a moment")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// now is the time, UTC ms.
func (a *API) now() int64 { return a.Now().UnixMilli() }
