package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/config"
)

// status is how a box is. What only a running server knows is nil without one.
type status struct {
	Running       bool           `json:"running"`
	Problems      []string       `json:"problems"` // empty: healthy
	Version       string         `json:"version"`
	PID           int            `json:"pid,omitempty"`
	UptimeSeconds int64          `json:"uptime_seconds,omitempty"`
	Listeners     *contact       `json:"listeners,omitempty"`
	Subscriber    *subscription  `json:"subscriber,omitempty"`
	Connections   *connections   `json:"connections,omitempty"`
	Messages      equation       `json:"messages"`
	Devices       []deviceStatus `json:"devices"`
	Refusals      refusals       `json:"refusals,omitempty"` // of all accounts, since the start
	Storage       storage        `json:"storage"`
	Certificates  []certs.Info   `json:"certificates"`
}

// subscription is the connection through which readings come in.
type subscription struct {
	Broker     string `json:"broker"`
	TLS        bool   `json:"tls"`
	Connected  bool   `json:"connected"`
	LastCommit moment `json:"last_commit"`
}

type connections struct {
	Now     int              `json:"now"`
	Total   int64            `json:"total"`
	Refused map[string]int64 `json:"refused"`
}

type storage struct {
	Path          string `json:"path"`
	SizeBytes     int64  `json:"size_bytes"`
	FreeBytes     int64  `json:"free_bytes"` // on the file system
	TotalBytes    int64  `json:"total_bytes"`
	LowSpace      bool   `json:"low_space"`
	Rows          int64  `json:"rows"` // telemetry messages
	SchemaVersion int    `json:"schema_version"`
}

const (
	expiresSoon   = 14 * 24 * time.Hour // renewal is due long before
	statusTimeout = 10 * time.Second
)

// Status looks at everything. It fails only when the database does not answer.
func (b *box) Status(ctx context.Context) (status, error) {
	now := b.now()
	s := status{Version: b.build.Version, Problems: []string{}, Devices: []deviceStatus{}, Certificates: []certs.Info{}}
	var err error
	if s.Messages, s.Devices, err = b.account(ctx); err != nil {
		return s, err
	}
	health, err := b.store.Health(ctx)
	if err != nil {
		return s, err
	}
	s.Storage = storage{
		Path: health.Path, SizeBytes: health.SizeBytes + health.WALBytes, Rows: health.Readings, SchemaVersion: health.SchemaVersion,
		FreeBytes: health.FreeBytes, TotalBytes: health.TotalBytes, LowSpace: lowSpace(health.Space, false),
	}
	if s.Storage.LowSpace {
		s.Problems = append(s.Problems, fmt.Sprintf("the disk of the database is nearly full: %s of %s free",
			size(health.FreeBytes), size(health.TotalBytes)))
	}
	if b.authority != nil {
		s.Certificates = b.authority.Certificates()
		if err := b.authority.ListProblem(); err != nil {
			s.Problems = append(s.Problems, err.Error())
		}
	}
	for _, c := range s.Certificates {
		if now.Add(expiresSoon).After(c.NotAfter) {
			s.Problems = append(s.Problems, fmt.Sprintf("certificate %s expires on %s", c.Path, c.NotAfter.Format(time.DateOnly)))
		}
	}
	if s.Messages.Difference != 0 {
		s.Problems = append(s.Problems, fmt.Sprintf("%d messages are not accounted for", s.Messages.Difference))
	}
	for _, d := range s.Devices {
		if d.Messages.Difference != 0 {
			s.Problems = append(s.Problems, fmt.Sprintf("%d messages of %s are not accounted for", d.Messages.Difference, d.ID))
		}
	}
	if b.subscriber != nil {
		b.addRunning(&s, now)
	}
	return s, nil
}

// addRunning adds what only a running server knows.
func (b *box) addRunning(s *status, now time.Time) {
	s.Running, s.PID = true, os.Getpid()
	s.UptimeSeconds = int64(now.Sub(b.started).Seconds())
	in := b.subscriber.Stats()
	s.Subscriber = &subscription{Broker: b.brokerAddress, TLS: b.cfg.MQTT.UseTLS, Connected: in.Connected}
	if !in.LastCommit.IsZero() {
		s.Subscriber.LastCommit = moment(in.LastCommit.UnixMilli())
	}
	if !in.Connected {
		s.Problems = append(s.Problems, "the subscriber is not connected to the broker at "+b.brokerAddress)
	}
	if in.CommitErr != nil {
		s.Problems = append(s.Problems, "readings cannot be stored: "+in.CommitErr.Error())
	}
	if err := b.endToEnd.alive(); err != nil {
		s.Problems = append(s.Problems, "messages do not come through: "+err.Error())
	}
	if b.broker == nil {
		return
	}
	st := b.broker.Stats()
	s.Connections = &connections{Now: st.Connected, Total: st.ConnectedTotal, Refused: st.Refused}
	s.Refusals = newRefusals(b.broker.Refusals())
	for i, d := range s.Devices {
		s.Devices[i] = d.withRefusals(s.Refusals)
	}
	a := b.broker.Addrs()
	s.Listeners = &contact{TCP: addrText(a.TCP), TLS: addrText(a.TLS), WebSocket: addrText(a.WebSocket)}
}

func newStatus(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show health, messages, devices, storage and certificates",
		Long: `Show how the running server is. Exit code 0: healthy; 1: running, with the problems named; 4: no server
runs here (what the database holds is printed all the same).`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), statusTimeout)
			defer cancel()
			loaded, err := a.load()
			if err != nil {
				return err
			}
			s, err := a.status(ctx, loaded.Config)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(a.stdout, s)
			} else {
				err = printStatus(a, s)
			}
			switch {
			case err != nil:
				return err
			case !s.Running:
				return kindOf(errUnreachable, withHint(fmt.Errorf("no server is running in %s", loaded.Config.DataDir), `start it with "plantops serve"`))
			case len(s.Problems) > 0:
				return errors.New(strings.Join(s.Problems, "\n"))
			}
			return nil
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// status asks the server or, when there is none, reads what it left.
func (a *app) status(ctx context.Context, cfg config.Config) (status, error) {
	server, err := dialControl(ctx, cfg.SocketPath())
	switch {
	case err == nil:
		return server.Status(ctx)
	case errors.Is(err, errUnauthorized):
		return status{}, err
	}
	if !exists(cfg.StorePath()) {
		return status{}, kindOf(errUnreachable, withHint(
			fmt.Errorf("no server is running in %s, and there is no database", cfg.DataDir), `start it with "plantops serve"`))
	}
	db, err := a.openReadOnly(ctx, cfg)
	if err != nil {
		return status{}, err
	}
	defer db.Close()
	left := a.newBox(cfg, db)
	if needsAuthority(cfg) {
		o := certsOptions(cfg, a.now, a.build.Date, nil)
		o.ReadOnly = true
		authority, err := certs.Open(o)
		if err != nil && !errors.Is(err, certs.ErrNoAuthority) {
			a.warn("%v", err)
		}
		left.authority = authority
	}
	return left.Status(ctx)
}

func printStatus(a *app, s status) error {
	now := a.now()
	state := "not running"
	if s.Running {
		state = fmt.Sprintf("running, version %s, pid %d, for %s", s.Version, s.PID, span(time.Duration(s.UptimeSeconds)*time.Second))
	}
	m := s.Messages
	rows := [][]string{
		{"server", state},
		{"messages", fmt.Sprintf("%d received = %d stored + %d duplicate + %d quarantined + %d refused + %d pending",
			m.Received, m.Stored, m.Duplicate, m.Quarantined, m.Refused, m.Pending)},
		{"devices", fmt.Sprintf("%d, %d online", len(s.Devices), online(s.Devices))},
		{"storage", fmt.Sprintf("%s, %s with %d telemetry messages; %s of %s free",
			s.Storage.Path, size(s.Storage.SizeBytes), s.Storage.Rows, size(s.Storage.FreeBytes), size(s.Storage.TotalBytes))},
	}
	if sub := s.Subscriber; sub != nil {
		how := "not connected to " + sub.Broker
		if sub.Connected {
			how = "connected to " + sub.Broker
		}
		if sub.TLS {
			how += " with TLS"
		}
		rows = append(rows, []string{"subscriber", how})
	}
	if l := s.Listeners; l != nil {
		var doors []string
		for _, door := range [][2]string{{"tcp", l.TCP}, {"tls", l.TLS}, {"websocket", l.WebSocket}} {
			if door[1] != "" {
				doors = append(doors, door[0]+" "+door[1])
			}
		}
		rows = append(rows, []string{"listeners", strings.Join(doors, ", ")})
	}
	if c := s.Connections; c != nil {
		rows = append(rows, []string{"connections", fmt.Sprintf("%d now, %d since the start", c.Now, c.Total)})
		for _, reason := range slices.Sorted(maps.Keys(c.Refused)) {
			rows = append(rows, []string{"refused", fmt.Sprintf("%d: %s", c.Refused[reason], reason)})
		}
	}
	for _, c := range s.Certificates {
		rows = append(rows, []string{c.Role + " certificate", fmt.Sprintf("until %s, %s", c.NotAfter.Format(time.DateOnly), c.Path)})
	}
	if err := table(a.stdout, rows); err != nil {
		return err
	}
	if len(s.Devices) > 0 {
		fmt.Fprintln(a.stdout)
		if err := table(a.stdout, deviceRows(s.Devices, now)); err != nil {
			return err
		}
	}
	return s.Refusals.print(a, now)
}

func online(devices []deviceStatus) int {
	n := 0
	for _, d := range devices {
		if d.Online {
			n++
		}
	}
	return n
}

func hostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
