package control

import (
	"context"
	"time"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/store"
)

// Equation accounts for every message: received = stored + duplicate + quarantined + refused + pending.
// Each message has exactly one outcome, so a difference is a bug.
type Equation struct {
	Received int64 `json:"received"` // where messages come in
	Outcomes
	Pending    int64 `json:"pending"`    // on their way to the disk; 0 when no server runs
	Difference int64 `json:"difference"` // received and nowhere else
}

// Outcomes are how many messages had which, as the database has committed them.
type Outcomes struct {
	Stored      int64 `json:"stored"` // a heartbeat too, and a message of which any metric was new
	Duplicate   int64 `json:"duplicate"`
	Quarantined int64 `json:"quarantined"`
	Refused     int64 `json:"refused"` // also what access rules refuse
}

func (o Outcomes) sum() int64 { return o.Stored + o.Duplicate + o.Quarantined + o.Refused }

// settled is the equation of what the database holds: nothing is pending in it.
func settled(c store.Counts) Equation {
	o := Outcomes(c)
	return Equation{Received: o.sum(), Outcomes: o}
}

// since adds what came in after the database held before.
func (e Equation) since(before, received, pending int64) Equation {
	sum := e.Received
	e.Received, e.Pending = before+received, pending
	e.Difference = e.Received - sum - pending
	return e
}

// Baseline is what the database held when the server started: messages, in all and by device. From then on the equation
// counts what comes in where it comes in.
type Baseline struct {
	total   int64
	devices map[string]int64
}

// TakeBaseline is taken before the broker lets anybody in: what was stored until then came in before.
func TakeBaseline(ctx context.Context, db *store.Store) (Baseline, error) {
	total, err := db.Totals(ctx)
	if err != nil {
		return Baseline{}, err
	}
	devices, err := db.Devices(ctx)
	if err != nil {
		return Baseline{}, err
	}
	b := Baseline{total: Outcomes(total).sum(), devices: map[string]int64{}}
	for _, d := range devices {
		b.devices[d.ID] = Outcomes(d.Counts).sum()
	}
	return b, nil
}

// arrived is what has come in since the start: counted where it comes in, not where it is stored.
func (r *Running) arrived() broker.IngestStats {
	if r.Broker != nil {
		return r.Broker.Stats().Ingest
	}
	in := r.Subscriber.Stats() // with another broker we see what it sends on
	return broker.IngestStats{Received: in.Received, Pending: in.Pending}
}

const (
	accountPause = 5 * time.Millisecond
	accountTries = 40
)

// account reads the counts on both sides, in all and for each device. They move while they are read, and a
// message is counted as stored a moment before it is no longer pending: so it looks until the two sides agree. Where
// they never do although nothing moves, there is a difference; where they move all the time, what is between
// them is on its way.
func (s *Server) account(ctx context.Context) (Equation, []DeviceStatus, error) {
	for try := 1; ; try++ {
		var in, after broker.IngestStats
		if s.running != nil {
			in = s.arrived()
		}
		devices, err := s.store.Devices(ctx)
		if err != nil {
			return Equation{}, nil, err
		}
		counts, err := s.store.Totals(ctx)
		if err != nil {
			return Equation{}, nil, err
		}
		total := settled(counts)
		if s.running != nil {
			total = total.since(s.running.Before.total, in.Received, in.Pending)
			after = s.arrived()
		}
		moving := in.Received != after.Received || in.Pending != after.Pending
		if total.Difference == 0 || try == accountTries {
			if moving {
				total = total.onItsWay()
			}
			return total, s.accountDevices(devices, in, moving), nil
		}
		select {
		case <-time.After(accountPause):
		case <-ctx.Done():
			return Equation{}, nil, ctx.Err()
		}
	}
}

// onItsWay takes a difference for messages that moved while the counts were read.
func (e Equation) onItsWay() Equation {
	e.Pending, e.Difference = e.Pending+e.Difference, 0
	return e
}

// before is how many messages of a device came in before its equation begins.
func (s *Server) before(device string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, purged := s.purged[device]; purged {
		return n
	}
	return s.running.Before.devices[device]
}

// rebase lets the equation of a device begin anew: what it sent until now counts for no device any more.
func (s *Server) rebase(device string, seen broker.DeviceStats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.purged == nil {
		s.purged = map[string]int64{}
	}
	s.purged[device] = seen.Pending - seen.Received
}

func (s *Server) accountDevices(devices []store.Device, in broker.IngestStats, moving bool) []DeviceStatus {
	now, offlineAfter := s.now(), s.OfflineAfter()
	list := make([]DeviceStatus, 0, len(devices))
	for _, d := range devices {
		one := NewDeviceStatus(d, offlineAfter, now)
		if in.Devices != nil && d.Behind.Source == "" { // the broker does not know whose messages are those of a gateway
			seen := in.Devices[d.ID]
			one.Messages = one.Messages.since(s.before(d.ID), seen.Received, seen.Pending)
			if moving {
				one.Messages = one.Messages.onItsWay()
			}
		}
		list = append(list, one)
	}
	return list
}
