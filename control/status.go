package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/store"
)

// Status is how a server is. What only a running one knows is nil without it.
type Status struct {
	Health        Health         `json:"health"`
	Running       bool           `json:"running"`
	Problems      []string       `json:"problems"` // one sentence each; empty: healthy
	Version       string         `json:"version"`
	PID           int            `json:"pid,omitempty"`
	UptimeSeconds int64          `json:"uptime_seconds,omitempty"`
	Listeners     *Contact       `json:"listeners,omitempty"` // of the embedded broker, without CA
	Subscriber    *Subscription  `json:"subscriber,omitempty"`
	Connections   *Connections   `json:"connections,omitempty"`
	Messages      Equation       `json:"messages"`
	Devices       []DeviceStatus `json:"devices"`
	Refusals      Refusals       `json:"refusals,omitempty"` // of all accounts, since the start
	Storage       Storage        `json:"storage"`
	Certificates  []certs.Info   `json:"certificates"`
}

// Subscription is the connection through which readings come in.
type Subscription struct {
	Broker     string `json:"broker"` // host:port
	TLS        bool   `json:"tls"`
	Connected  bool   `json:"connected"`
	LastCommit Moment `json:"last_commit"` // of this run
}

// Connections are those of the embedded broker.
type Connections struct {
	Now     int              `json:"now"`
	Total   int64            `json:"total"`   // CONNECTs accepted since the start
	Refused map[string]int64 `json:"refused"` // by reason, since the start
}

// Storage is the database and the file system that it is on.
type Storage struct {
	Path          string `json:"path"`
	SizeBytes     int64  `json:"size_bytes"` // with its write-ahead log
	FreeBytes     int64  `json:"free_bytes"` // on the file system
	TotalBytes    int64  `json:"total_bytes"`
	LowSpace      bool   `json:"low_space"`
	Rows          int64  `json:"rows"` // telemetry messages
	SchemaVersion int    `json:"schema_version"`
}

// Health is one word about a server.
type Health string

const (
	Healthy   Health = "healthy"
	Degraded  Health = "degraded"  // readings are stored, but a person should look at the problems
	Unhealthy Health = "unhealthy" // readings are not stored, or no server runs
)

// judge sums the status up. failing: readings are not stored.
func (st *Status) judge(failing bool) {
	switch {
	case !st.Running || failing:
		st.Health = Unhealthy
	case len(st.Problems) > 0:
		st.Health = Degraded
	default:
		st.Health = Healthy
	}
}

const (
	expiresSoon = 14 * 24 * time.Hour // renewal is due long before
	// The disk is nearly full below whichever of the two is reached first.
	lowSpaceBytes   = 200 << 20
	lowSpacePercent = 5
)

// LowSpace decides whether a disk is nearly full. One that was stays so until there is a tenth more room than the limit:
// a file system that breathes does not fill the log.
func LowSpace(s store.Space, was bool) bool {
	limit := max(lowSpaceBytes, s.TotalBytes/100*lowSpacePercent)
	if was {
		limit += limit / 10
	}
	return s.FreeBytes < limit
}

// Status implements Operator.
func (s *Server) Status(ctx context.Context) (Status, error) {
	st := Status{Version: s.version, Problems: []string{}, Devices: []DeviceStatus{}, Certificates: []certs.Info{}}
	var err error
	if st.Messages, st.Devices, err = s.account(ctx); err != nil {
		return st, err
	}
	health, err := s.store.Health(ctx)
	if err != nil {
		return st, err
	}
	st.addStorage(health)
	if s.authority != nil {
		st.addCertificates(s.authority, s.now())
	}
	if st.Messages.Difference != 0 {
		st.problem("%d messages are not accounted for", st.Messages.Difference)
	}
	for _, d := range st.Devices {
		if d.Messages.Difference != 0 {
			st.problem("%d messages of %s are not accounted for", d.Messages.Difference, d.ID)
		}
	}
	failing := false
	if s.running != nil {
		failing = st.addRunning(s.running, s.now())
	}
	st.judge(failing)
	return st, nil
}

func (st *Status) problem(format string, args ...any) {
	st.Problems = append(st.Problems, fmt.Sprintf(format, args...))
}

func (st *Status) addStorage(h store.Health) {
	st.Storage = Storage{
		Path: h.Path, SizeBytes: h.SizeBytes + h.WALBytes, Rows: h.Readings, SchemaVersion: h.SchemaVersion,
		FreeBytes: h.FreeBytes, TotalBytes: h.TotalBytes, LowSpace: LowSpace(h.Space, false),
	}
	if st.Storage.LowSpace {
		st.problem("the disk of the database is nearly full: %s of %s free", Bytes(h.FreeBytes), Bytes(h.TotalBytes))
	}
}

func (st *Status) addCertificates(authority *certs.Authority, now time.Time) {
	st.Certificates = authority.Certificates()
	if err := authority.ListProblem(); err != nil {
		st.problem("%v", err)
	}
	for _, c := range st.Certificates {
		if now.Add(expiresSoon).After(c.NotAfter) {
			st.problem("certificate %s expires on %s", c.Path, c.NotAfter.Format(time.DateOnly))
		}
	}
}

// addRunning adds what only a running server knows, and reports whether readings are not stored.
func (st *Status) addRunning(r *Running, now time.Time) (failing bool) {
	st.Running, st.PID = true, os.Getpid()
	st.UptimeSeconds = int64(now.Sub(r.Started).Seconds())
	in := r.Subscriber.Stats()
	st.Subscriber = &Subscription{Broker: r.BrokerAddress, TLS: r.UsesTLS, Connected: in.Connected}
	if !in.LastCommit.IsZero() {
		st.Subscriber.LastCommit = Moment(in.LastCommit.UnixMilli())
	}
	before := len(st.Problems)
	if !in.Connected {
		st.problem("the subscriber is not connected to the broker at %s", r.BrokerAddress)
	}
	if in.CommitErr != nil {
		st.problem("readings cannot be stored: %v", in.CommitErr)
	}
	if err := r.Fault(); err != nil {
		st.problem("messages do not come through: %v", err)
	}
	failing = len(st.Problems) > before
	if r.Broker == nil {
		return failing
	}
	b := r.Broker.Stats()
	st.Connections = &Connections{Now: b.Connected, Total: b.ConnectedTotal, Refused: b.Refused}
	st.Refusals = newRefusals(r.Broker.Refusals())
	for i, d := range st.Devices {
		st.Devices[i] = d.WithRefusals(st.Refusals)
	}
	reach := Bound(r.Broker.Addrs())
	st.Listeners = &reach
	return failing
}

// Alive returns nil when the parts of a running server that everything waits for answer, and messages come through. What
// does not answer before ctx ends is an error. Without a running server nothing is alive.
func (s *Server) Alive(ctx context.Context) error {
	if s.running == nil {
		return errors.New("no server runs in this process")
	}
	if err := s.running.Fault(); err != nil {
		return fmt.Errorf("messages do not come through: %w", err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := s.store.Health(ctx) // reads the file
		s.running.arrived()
		s.running.Subscriber.Stats()
		answered <- err
	}()
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
		return errors.New("the store or the broker does not answer")
	}
}
