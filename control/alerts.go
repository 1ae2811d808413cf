package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/plantops/plantops/alert"
	"github.com/plantops/plantops/alert/notify"
	"github.com/plantops/plantops/certs"
)

// Alerting is the part of a running server that judges and tells.
type Alerting interface {
	List(ctx context.Context, limit int) ([]alert.Alert, error)
	Open() []alert.Alert
	Acknowledge(ctx context.Context, id int64, by string) error
	Snooze(ctx context.Context, id int64, length time.Duration) error
	Test(ctx context.Context, channel string) error
	Channels() []notify.State
}

// Alerts are those that last and those that are over, the newest first, and the channels that they go to.
type Alerts struct {
	Alerts   []alert.Alert  `json:"alerts"`
	Channels []notify.State `json:"channels"`
}

// AlertStatus is what Status tells of alerts.
type AlertStatus struct {
	Open         int            `json:"open"`
	Acknowledged int            `json:"acknowledged"` // of those
	Channels     []notify.State `json:"channels,omitempty"`
}

// alerting is an error where no server runs.
func (s *Server) alerting() (Alerting, error) {
	if s.running == nil || s.running.Alerts == nil {
		return nil, KindOf(ErrUnreachable, WithHint(errors.New("no server runs here, and nobody else judges"), `start it with "plantops serve"`))
	}
	return s.running.Alerts, nil
}

// Alerts implements Operator.
func (s *Server) Alerts(ctx context.Context, limit int) (Alerts, error) {
	a, err := s.alerting()
	if err != nil {
		return Alerts{}, err
	}
	list, err := a.List(ctx, limit)
	return Alerts{list, a.Channels()}, err
}

// AcknowledgeAlert implements Operator.
func (s *Server) AcknowledgeAlert(ctx context.Context, id int64, by string) error {
	a, err := s.alerting()
	if err != nil {
		return err
	}
	return a.Acknowledge(ctx, id, by)
}

// SnoozeAlert implements Operator.
func (s *Server) SnoozeAlert(ctx context.Context, id int64, length time.Duration) error {
	a, err := s.alerting()
	if err != nil {
		return err
	}
	return a.Snooze(ctx, id, length)
}

// TestAlerts implements Operator.
func (s *Server) TestAlerts(ctx context.Context, channel string) error {
	a, err := s.alerting()
	if err != nil {
		return err
	}
	return a.Test(ctx, channel)
}

// addAlerts tells how many alerts last, and which channels do not take them.
func (st *Status) addAlerts(a Alerting) {
	if a == nil {
		return
	}
	told := &AlertStatus{Channels: a.Channels()}
	for _, one := range a.Open() {
		if told.Open++; one.Acknowledged != 0 {
			told.Acknowledged++
		}
	}
	for _, c := range told.Channels {
		if c.Trouble != "" {
			st.problem("alerts do not get to channel %s: %s", c.Name, c.Trouble)
		}
	}
	st.Alerts = told
}

// quarantineGrows is how many messages a day in quarantine are told of. One device that sends nonsense every few minutes has more.
const quarantineGrows = 100

// Faults are what is wrong with the box and worth an alert. It looks at nothing large.
func (s *Server) Faults(ctx context.Context) (list []alert.Fault, err error) {
	space, err := s.store.Space()
	if err != nil {
		return nil, fmt.Errorf("room on the disk: %w", err)
	}
	low := LowSpace(space, s.wasLow.Load())
	s.wasLow.Store(low)
	if low {
		list = append(list, alert.Fault{Kind: alert.Disk, Text: fmt.Sprintf("the disk of the database has %s free of %s", Bytes(space.FreeBytes), Bytes(space.TotalBytes))})
	}
	if s.authority != nil {
		list = append(list, expiring(s.authority.Certificates(), s.now())...)
	}
	st := Status{ClockDoubt: s.doubt()}
	if err := st.addBackups(ctx, s.backup, s.store, s.now()); err != nil {
		return nil, err
	}
	for i, problem := range st.Problems {
		list = append(list, alert.Fault{Kind: alert.Backup, Subject: backupSubjects[min(i, len(backupSubjects)-1)], Text: problem})
	}
	grown, _, err := s.store.QuarantineGrowth(ctx, s.now().Add(-24*time.Hour).UnixMilli())
	if err == nil && grown >= quarantineGrows {
		list = append(list, alert.Fault{Kind: alert.Quarantine, Text: fmt.Sprintf("%d messages or more went into quarantine in the last day: see plantops quarantine list", grown)})
	}
	return list, err
}

// backupSubjects tell two problems with backups apart.
var backupSubjects = []string{"", "after"}

func expiring(list []certs.Info, now time.Time) (faults []alert.Fault) {
	for _, c := range list {
		if now.Add(expiresSoon).After(c.NotAfter) {
			faults = append(faults, alert.Fault{Kind: alert.Certificate, Subject: c.Path, Text: fmt.Sprintf("certificate %s expires on %s", c.Path, c.NotAfter.Format(time.DateOnly))})
		}
	}
	return faults
}

// alertRequest is the body of requests about alerts.
type alertRequest struct {
	ID      int64  `json:"id,omitempty"`
	Limit   int    `json:"limit,omitempty"`
	By      string `json:"by,omitempty"`
	Seconds int64  `json:"seconds,omitempty"`
	Channel string `json:"channel,omitempty"`
}

func handleAlerts(o Operator, handle func(string, func(*http.Request) (any, error))) {
	with := func(pattern string, do func(context.Context, alertRequest) (any, error)) {
		handle(pattern, func(r *http.Request) (any, error) {
			which, err := body[alertRequest](r)
			if err != nil {
				return nil, err
			}
			return do(r.Context(), which)
		})
	}
	with("POST /alerts/list", func(ctx context.Context, r alertRequest) (any, error) { return o.Alerts(ctx, r.Limit) })
	with("POST /alerts/acknowledge", func(ctx context.Context, r alertRequest) (any, error) {
		return struct{}{}, o.AcknowledgeAlert(ctx, r.ID, r.By)
	})
	with("POST /alerts/snooze", func(ctx context.Context, r alertRequest) (any, error) {
		return struct{}{}, o.SnoozeAlert(ctx, r.ID, time.Duration(r.Seconds)*time.Second)
	})
	with("POST /alerts/test", func(ctx context.Context, r alertRequest) (any, error) {
		return struct{}{}, o.TestAlerts(ctx, r.Channel)
	})
}

// Alerts implements Operator.
func (c *Client) Alerts(ctx context.Context, limit int) (Alerts, error) {
	return ask[Alerts](ctx, c, http.MethodPost, "/alerts/list", alertRequest{Limit: limit})
}

// AcknowledgeAlert implements Operator.
func (c *Client) AcknowledgeAlert(ctx context.Context, id int64, by string) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "/alerts/acknowledge", alertRequest{ID: id, By: by})
	return err
}

// SnoozeAlert implements Operator.
func (c *Client) SnoozeAlert(ctx context.Context, id int64, length time.Duration) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "/alerts/snooze", alertRequest{ID: id, Seconds: int64(length.Seconds())})
	return err
}

// TestAlerts implements Operator.
func (c *Client) TestAlerts(ctx context.Context, channel string) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "/alerts/test", alertRequest{Channel: channel})
	return err
}
