package doctor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
)

// checkServer asks the server how it is. The status is nil when none answers.
func (p Patient) checkServer(ctx context.Context, r *Report) *control.Status {
	if p.Server == nil {
		if errors.Is(p.ServerErr, control.ErrUnauthorized) {
			r.Add(Finding{"server", Fail, fmt.Sprintf("may be running, but this user may not ask it: %v", p.ServerErr),
				"run this as the user of the server: sudo -u plantops plantops doctor"})
			return nil
		}
		r.Add(Finding{"server", Fail, "no server is running in " + p.DataDir,
			"start it: sudo systemctl start plantops, or plantops serve; what it says when it ends at once: journalctl -u plantops -n 50"})
		return nil
	}
	ctx, cancel := p.bounded(ctx)
	defer cancel()
	s, err := p.Server.Status(ctx)
	if err != nil {
		r.Add(Finding{"server", Fail, fmt.Sprintf("is running and does not say how it is: %v", err),
			"restart it: sudo systemctl restart plantops; when that does not help, the log says what it does"})
		return nil
	}
	f := Finding{Name: "server", State: OK, Found: fmt.Sprintf("running, version %s, pid %d, for %s", s.Version, s.PID, control.Span(time.Duration(s.UptimeSeconds)*time.Second))}
	switch s.Health {
	case control.Unhealthy:
		f = Finding{"server", Fail, strings.Join(s.Problems, "; "), "the log says more: journalctl -u plantops -n 50; below are the checks of what it may come from"}
	case control.Degraded:
		f = Finding{"server", Warn, strings.Join(s.Problems, "; "), "see plantops status, and the checks below"}
	}
	r.Add(f)
	return &s
}

// checkListeners connects to each listener as a device would, with an account that is removed again.
func (p Patient) checkListeners(ctx context.Context, r *Report) {
	if p.Server == nil {
		p.checkPorts(r)
		return
	}
	reach, err := p.contact(ctx)
	if err != nil {
		r.Add(Finding{"listeners", Fail, err.Error(), "restart the server: sudo systemctl restart plantops"})
		return
	}
	account, password, err := p.makeAccount(ctx)
	if err != nil {
		r.Add(Finding{"accounts", Fail, fmt.Sprintf("no account can be made: %v", err), "plantops status says whether the database can be written"})
		return
	}
	defer p.removeAccount(ctx, r, account)
	bound := false
	for _, l := range []struct{ name, address string }{{"tcp", reach.TCP}, {"tls", reach.TLS}, {"websocket", reach.WebSocket}} {
		if l.address == "" {
			continue
		}
		bound = true
		r.Add(p.checkListener(ctx, l.name, l.address, reach, account, password))
		if l.name == "tls" {
			p.checkNames(ctx, r, local(l.address), reach, account)
		}
	}
	if !bound {
		r.Add(Finding{Name: "listeners", State: Skip, Found: "the broker is another program"})
	}
}

func (p Patient) contact(ctx context.Context) (control.Contact, error) {
	ctx, cancel := p.bounded(ctx)
	defer cancel()
	return p.Server.Contact(ctx)
}

// makeAccount makes one that may publish below a topic that nobody reads. A user and not a device, since of a device a
// trace stays, and at a topic of no device, since nothing of this is a reading.
func (p Patient) makeAccount(ctx context.Context) (name, password string, err error) {
	ctx, cancel := p.bounded(ctx)
	defer cancel()
	name, password = "doctor-"+strings.ToLower(rand.Text()[:8]), rand.Text()
	return name, password, p.Server.AddUser(ctx, store.NewUser{Name: name, Password: password, Publish: []string{"doctor/%u"}})
}

func (p Patient) removeAccount(ctx context.Context, r *Report, name string) {
	ctx, cancel := p.bounded(context.WithoutCancel(ctx)) // also after Ctrl-C
	defer cancel()
	if err := p.Server.RemoveUser(ctx, name); err != nil {
		r.Add(Finding{"accounts", Fail, fmt.Sprintf("the account of this check could not be removed: %v", err), "plantops user remove " + name})
	}
}

// checkPath sends a message from the broker through the subscriber into the database and waits for its commit.
func (p Patient) checkPath(ctx context.Context, r *Report) {
	if p.Server == nil {
		r.Add(Finding{Name: "path to the database", State: Skip, Found: "no server is running"})
		return
	}
	ctx, cancel := p.bounded(ctx)
	defer cancel()
	began := time.Now()
	err := p.Server.Probe(ctx)
	took := time.Since(began)
	switch {
	case errors.Is(err, control.ErrNoBroker):
		r.Add(Finding{Name: "path to the database", State: Skip, Found: err.Error()})
	case err != nil:
		r.Add(Finding{"path to the database", Fail, fmt.Sprintf("a message does not come through: %v", err),
			"no reading is acknowledged now, devices keep theirs: the log says why; is the disk full, or the database locked by another program?"})
	case took > p.StallTimeout/2:
		r.Add(Finding{"path to the database", Warn, fmt.Sprintf("a message took %s from the broker to its commit", round(took)),
			"the disk is slow or busy: see the speed of a sync; devices wait at most " + p.StallTimeout.String()})
	default:
		r.Add(Finding{Name: "path to the database", State: OK, Found: fmt.Sprintf("a message came through and was committed in %s", round(took))})
	}
}

// checkPorts tells, without a server, whether it could have its ports.
func (p Patient) checkPorts(r *Report) {
	for _, name := range []string{"tcp", "tls", "websocket"} {
		address, on := p.Listeners[name]
		if !on {
			continue
		}
		f := Finding{Name: "listener " + name, State: Skip, Found: "no server is running; port of " + address + " is free"}
		l, err := net.Listen("tcp", address)
		if err == nil {
			l.Close()
		} else if _, port, _ := net.SplitHostPort(address); errors.Is(err, syscall.EADDRINUSE) {
			f = Finding{"listener " + name, Fail, fmt.Sprintf("another program has %s", address),
				fmt.Sprintf("which one: sudo ss -ltnp 'sport = :%s'; stop it, or change %s", port, p.Settings[name])}
		} else {
			f = Finding{"listener " + name, Fail, err.Error(), "change " + p.Settings[name]}
		}
		r.Add(f)
	}
}

// round is a time for people: "30 ms", "1.5 s".
func round(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return "less than 1 ms"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
