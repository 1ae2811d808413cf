package control

import (
	"context"
	"net/http"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/derive"
)

// Calibration is one of a metric of a device, as programs see it.
type Calibration struct {
	Device  string        `json:"device"`
	Metric  string        `json:"metric"`
	Version int           `json:"version"`
	From    Moment        `json:"from"`
	Kind    string        `json:"kind"` // none, offset, line or table
	Points  derive.Points `json:"points"`
	Note    string        `json:"note,omitempty"`
	Created Moment        `json:"created"`
}

// Void is a range of readings that do not count, as programs see it.
type Void struct {
	ID      int64  `json:"id"`
	Device  string `json:"device"`
	Metric  string `json:"metric,omitempty"` // empty: all
	From    Moment `json:"from"`
	To      Moment `json:"to"` // not included; null: no end
	Reason  string `json:"reason"`
	Created Moment `json:"created"`
	Undone  Moment `json:"undone"` // null: it is not
}

// Derived is a metric that is computed when it is read, as programs see it.
type Derived struct {
	Name    string `json:"name"`
	Formula string `json:"formula"` // the whole, with the name
	Unit    string `json:"unit,omitempty"`
}

// Corrections is what is done to readings when they are read.
type Corrections struct {
	Calibrations []Calibration `json:"calibrations"`
	Voids        []Void        `json:"voids"`
	Derived      []Derived     `json:"derived"`
}

// CorrectionsOf are those of a store.
func CorrectionsOf(c store.Corrections) Corrections {
	out := Corrections{[]Calibration{}, []Void{}, []Derived{}}
	for _, one := range c.Calibrations {
		out.Calibrations = append(out.Calibrations, calibrationOf(one))
	}
	for _, one := range c.Voids {
		out.Voids = append(out.Voids, voidOf(one))
	}
	for _, one := range c.Derived {
		out.Derived = append(out.Derived, Derived{one.Name, one.String(), one.Unit()})
	}
	return out
}

func calibrationOf(c derive.Calibration) Calibration {
	return Calibration{c.Device, c.Metric, c.Version, Moment(c.From), c.Points.Kind(), c.Points, c.Note, Moment(c.Created)}
}

func voidOf(v derive.Void) Void {
	return Void{v.ID, v.Device, v.Metric, Moment(v.From), Moment(v.To), v.Reason, Moment(v.Created), Moment(v.Undone)}
}

// Calibrate implements Operator.
func (s *Server) Calibrate(ctx context.Context, c Calibration) (Calibration, error) {
	done, err := s.store.Calibrate(ctx, derive.Calibration{Device: c.Device, Metric: c.Metric, From: int64(c.From), Points: c.Points, Note: c.Note})
	return calibrationOf(done), err
}

// Void implements Operator.
func (s *Server) Void(ctx context.Context, v Void) (Void, error) {
	done, err := s.store.Void(ctx, derive.Void{Device: v.Device, Metric: v.Metric, From: int64(v.From), To: int64(v.To), Reason: v.Reason})
	return voidOf(done), err
}

// Unvoid implements Operator.
func (s *Server) Unvoid(ctx context.Context, id int64) error {
	return s.store.Unvoid(ctx, id)
}

// Derive implements Operator.
func (s *Server) Derive(ctx context.Context, formula string) (Derived, error) {
	d, err := derive.ParseFormula(formula)
	if err == nil {
		err = s.store.Derive(ctx, d)
	}
	if err != nil {
		return Derived{}, err
	}
	return Derived{d.Name, d.String(), d.Unit()}, nil
}

// RemoveDerived implements Operator.
func (s *Server) RemoveDerived(ctx context.Context, name string) error {
	return s.store.RemoveDerived(ctx, name)
}

// Calibrate implements Operator.
func (c *Client) Calibrate(ctx context.Context, request Calibration) (Calibration, error) {
	return ask[Calibration](ctx, c, http.MethodPost, "/corrections/calibrate", request)
}

// Void implements Operator.
func (c *Client) Void(ctx context.Context, request Void) (Void, error) {
	return ask[Void](ctx, c, http.MethodPost, "/corrections/void", request)
}

// Unvoid implements Operator.
func (c *Client) Unvoid(ctx context.Context, id int64) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "/corrections/unvoid", Void{ID: id})
	return err
}

// Derive implements Operator.
func (c *Client) Derive(ctx context.Context, formula string) (Derived, error) {
	return ask[Derived](ctx, c, http.MethodPost, "/corrections/derive", Derived{Formula: formula})
}

// RemoveDerived implements Operator.
func (c *Client) RemoveDerived(ctx context.Context, name string) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "/corrections/remove-derived", Derived{Name: name})
	return err
}

// handleCorrections adds what changes corrections to the socket.
func handleCorrections(o Operator, handle func(pattern string, do func(r *http.Request) (any, error))) {
	handle("POST /corrections/calibrate", func(r *http.Request) (any, error) {
		request, err := body[Calibration](r)
		if err != nil {
			return nil, err
		}
		return o.Calibrate(r.Context(), request)
	})
	handle("POST /corrections/void", func(r *http.Request) (any, error) {
		request, err := body[Void](r)
		if err != nil {
			return nil, err
		}
		return o.Void(r.Context(), request)
	})
	handle("POST /corrections/unvoid", func(r *http.Request) (any, error) {
		request, err := body[Void](r)
		if err != nil {
			return nil, err
		}
		return struct{}{}, o.Unvoid(r.Context(), request.ID)
	})
	handle("POST /corrections/derive", func(r *http.Request) (any, error) {
		request, err := body[Derived](r)
		if err != nil {
			return nil, err
		}
		return o.Derive(r.Context(), request.Formula)
	})
	handle("POST /corrections/remove-derived", func(r *http.Request) (any, error) {
		request, err := body[Derived](r)
		if err != nil {
			return nil, err
		}
		return struct{}{}, o.RemoveDerived(r.Context(), request.Name)
	})
}
