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
	Web           string         `json:"web,omitempty"`       // what the web page listens on, host:port
	Subscriber    *Subscription  `json:"subscriber,omitempty"`
	Bridges       []BridgeStatus `json:"bridges,omitempty"`
	Connections   *Connections   `json:"connections,omitempty"`
	Messages      Equation       `json:"messages"`
	Devices       []DeviceStatus `json:"devices"`
	Refusals      Refusals       `json:"refusals,omitempty"` // of all accounts, since the start
	Unread        Unread         `json:"unread,omitempty"`   // of all accounts, since the start
	Storage       Storage        `json:"storage"`
	Quarantine    Quarantine     `json:"quarantine"`
	Certificates  []certs.Info   `json:"certificates"`
	Rollover      *Rollover      `json:"ca_rollover,omitempty"` // while one authority follows another
	Retention     Retention      `json:"retention"`
	Backups       Backups        `json:"backup"`
	Alerts        *AlertStatus   `json:"alerts,omitempty"`
	ClockDoubt    string         `json:"clock_doubt,omitempty"` // why the clock is not to be trusted
}

// Subscription is the connection through which readings come in.
type Subscription struct {
	Broker     string `json:"broker"` // host:port
	TLS        bool   `json:"tls"`
	Connected  bool   `json:"connected"`
	LastCommit Moment `json:"last_commit"` // of this run
}

// BridgeStatus is a bridge to another broker. Its counts are those of this run.
type BridgeStatus struct {
	Name      string      `json:"name"`
	Broker    string      `json:"broker"` // host:port
	Connected bool        `json:"connected"`
	Since     Moment      `json:"since"`              // it has been connected, or away
	Reason    string      `json:"reason,omitempty"`   // it is away
	Problems  []string    `json:"problems,omitempty"` // what is not carried although it is connected
	Waiting   int64       `json:"waiting"`            // messages here that the other broker has not acknowledged
	Out       BridgeCount `json:"out"`
	In        BridgeCount `json:"in"`
}

// BridgeCount counts the messages of one direction.
type BridgeCount struct {
	Carried int64 `json:"carried"`
	Refused int64 `json:"refused"` // by the broker that was to have them
	Dropped int64 `json:"dropped"` // of QoS 0, without room
	Looped  int64 `json:"looped"`  // they had been here before
}

// addBridges adds what the bridges tell.
func (st *Status) addBridges(r *Running, now time.Time) {
	if r.Bridges == nil {
		return
	}
	for _, b := range r.Bridges() {
		one := BridgeStatus{Name: b.Name, Broker: b.Address, Connected: b.Connected, Since: Moment(b.Since.UnixMilli()), Reason: b.Why,
			Problems: b.Refused, Waiting: r.Broker.Waiting(b.ClientID), Out: BridgeCount(b.Out), In: BridgeCount(b.In)}
		if !one.Connected {
			st.problem("the bridge %s is not connected: %s", one.Name, one.Reason)
		}
		for _, problem := range one.Problems {
			st.problem("the bridge %s: %s", one.Name, problem)
		}
		if n := one.Out.Refused + one.In.Refused; n > 0 && now.Sub(b.Last.At) < refusalIsNews {
			st.problem("the bridge %s has left %d messages that were refused, the last to %s, %s", one.Name, n, b.Last.Topic, b.Last.Reason)
		}
		st.Bridges = append(st.Bridges, one)
	}
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
	UsedBytes     int64  `json:"used_bytes"`     // of the file; the rest is free in it
	MaxBytes      int64  `json:"max_used_bytes"` // store.max_size; 0: any
	Oldest        Moment `json:"oldest_reading"` // null: none
	// GrowthPerDay is by how many bytes a day it has grown in the last days; null while that is not known. LastsSeconds is how long the
	// disk lasts at that rate; null when it is not known, or when the database does not grow.
	GrowthPerDay *int64 `json:"growth_bytes_per_day"`
	LastsSeconds *int64 `json:"disk_lasts_seconds"`
	// Salvages are the times that the database was damaged and made anew.
	Salvages []Salvage `json:"salvages,omitempty"`
}

// Salvage is what became of a damaged database.
type Salvage struct {
	Time     Moment           `json:"time"`
	Cause    string           `json:"cause"`
	OldFile  string           `json:"old_file"` // beside the database
	Lost     string           `json:"lost,omitempty"`
	Searched int64            `json:"searched_percent"`
	Missing  map[string]int64 `json:"missing_rows,omitempty"` // by device
}

// Quarantine is what waits for somebody to look at it.
type Quarantine struct {
	Entries    int64        `json:"entries"`
	LastDay    int64        `json:"last_day"` // of them arrived in the last 24 hours; 1000 means at least so many
	Newest     Moment       `json:"newest"`
	Summarised []Summarised `json:"summarised,omitempty"` // what is only counted any more
}

// Summarised is what is left of entries that made room.
type Summarised struct {
	Device string `json:"device"`
	Reason string `json:"reason"`
	Count  int64  `json:"count"`
	First  Moment `json:"first"`
	Last   Moment `json:"last"`
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
	// The disk is nearly full below lowSpacePercent of it, but not before less than enoughBytes are free, and always below
	// lowSpaceBytes.
	lowSpaceBytes   = 200 << 20
	lowSpacePercent = 5
	enoughBytes     = 2 << 30

	refusalIsNews = time.Hour // so long a message that a bridge could not carry is a problem; afterwards it is only counted

	lossIsNews = 7 * 24 * time.Hour // so long what a damaged database lost is a problem; afterwards it is only listed
)

// LowSpace decides whether a disk is nearly full. One that was stays so until there is a tenth more room than the limit:
// a file system that breathes does not fill the log.
func LowSpace(s store.Space, was bool) bool {
	limit := max(lowSpaceBytes, min(s.TotalBytes/100*lowSpacePercent, enoughBytes))
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
	if err := st.addQuarantine(ctx, s.store, health, s.now()); err != nil {
		return st, err
	}
	if err := st.addSalvages(ctx, s.store, s.now()); err != nil {
		return st, err
	}
	if st.Retention, err = s.retention(ctx); err != nil {
		return st, err
	}
	if st.ClockDoubt = s.doubt(); st.ClockDoubt != "" {
		st.problem("the clock is not to be trusted: %s", st.ClockDoubt)
	}
	if err := s.addReach(ctx, &st, health); err != nil {
		return st, err
	}
	st.addSize()
	if err := st.addBackups(ctx, s.backup, s.store, s.now()); err != nil {
		return st, err
	}
	if s.authority != nil {
		if err := s.addAuthority(ctx, &st); err != nil {
			return st, err
		}
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

func (st *Status) addQuarantine(ctx context.Context, db *store.Store, h store.Health, now time.Time) error {
	q := Quarantine{Entries: h.Quarantined}
	var newest int64
	var err error
	if q.LastDay, newest, err = db.QuarantineGrowth(ctx, now.Add(-24*time.Hour).UnixMilli()); err != nil {
		return err
	}
	q.Newest = Moment(newest)
	gone, err := db.QuarantineSummaries(ctx)
	for _, g := range gone {
		q.Summarised = append(q.Summarised, Summarised{g.Device, g.Reason, g.Count, Moment(g.First), Moment(g.Last)})
	}
	st.Quarantine = q
	return err
}

func (st *Status) addSalvages(ctx context.Context, db *store.Store, now time.Time) error {
	list, err := db.Salvages(ctx)
	for _, one := range list {
		st.Storage.Salvages = append(st.Storage.Salvages, Salvage{Time: Moment(one.Begun), Cause: one.Cause, OldFile: one.Source,
			Lost: one.Lost, Searched: one.Done, Missing: one.Missing})
		missing := int64(0)
		for _, n := range one.Missing {
			missing += n
		}
		news := now.Sub(time.UnixMilli(one.Begun)).Abs() < lossIsNews
		switch {
		case one.Finished == 0:
			st.problem("the database was damaged: its readings are being brought back, %d %% of %s are searched", one.Done, one.Source)
		case news && missing > 0:
			st.problem("the database was damaged: %d messages with readings of %d devices are lost; the old file is %s", missing, len(one.Missing), one.Source)
		}
		if news && one.Lost != "" {
			st.problem("the database was damaged, lost: %s; the old file is %s", one.Lost, one.Source)
		}
	}
	return err
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
	if r.Web != nil {
		st.Web = r.Web.Address()
	}
	st.addAlerts(r.Alerts)
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
	st.Unread = newUnread(r.Broker.Unread())
	for i, d := range st.Devices {
		st.Devices[i] = d.WithRefusals(st.Refusals).WithUnread(st.Unread)
	}
	st.addBridges(r, now)
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

// Parts tells of the two that nobody can do without how they are: whether what comes in is stored, and whether it comes in. Both are nil while
// that is so. It costs little, so it may be asked often.
func (s *Server) Parts(ctx context.Context) (database, mqtt error) {
	if s.running == nil {
		err := errors.New("no server runs in this process")
		return err, err
	}
	in := s.running.Subscriber.Stats()
	if !in.Connected {
		mqtt = fmt.Errorf("the subscriber is not connected to the broker at %s", s.running.BrokerAddress)
	}
	if in.CommitErr != nil {
		return fmt.Errorf("readings cannot be stored: %w", in.CommitErr), mqtt
	}
	if mqtt == nil {
		mqtt = s.running.Fault()
	}
	_, database = s.store.Setting(ctx, "ready") // reads the file
	return database, mqtt
}
