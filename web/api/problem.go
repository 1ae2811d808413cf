package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/garden"
	"github.com/plantops/plantops/store/people"
)

// problem writes an error. Its detail is text, which the front end of the old system shows too.
func problem(w http.ResponseWriter, status int, detail string, faults ...*huma.ErrorDetail) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(&huma.ErrorModel{ // who asked may have gone
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, Errors: faults,
	})
}

// refusal is an error with the status that it is answered with.
type refusal struct {
	status int
	detail string
}

func (r *refusal) Error() string { return r.detail }

func refuse(status int, detail string) error { return &refusal{status, detail} }

// invalid makes of an error one of what was asked for, unless it is known to be another's.
func invalid(err error) error {
	if err == nil || statusOf(err) != http.StatusInternalServerError {
		return err
	}
	return refuse(http.StatusUnprocessableEntity, err.Error())
}

// statusOf is the status that an error is answered with.
func statusOf(err error) int {
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	var ours *refusal
	var garden422 *garden.InvalidError
	switch {
	case errors.As(err, &ours):
		return ours.status
	case errors.As(err, &garden422),
		is(store.ErrInvalidID, store.ErrInvalidFilter, store.ErrInvalidPassword, people.ErrInvalidName, people.ErrInvalidRole):
		return http.StatusUnprocessableEntity
	case is(store.ErrNotFound, people.ErrNotFound):
		return http.StatusNotFound
	case is(store.ErrExists, store.ErrOtherRole, people.ErrExists, garden.ErrMany, people.ErrMany):
		return http.StatusConflict
	case is(store.ErrFull, store.ErrLocked, store.ErrInDoubt, store.ErrClosed, control.ErrNoBroker,
		context.DeadlineExceeded, context.Canceled):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// fail answers with an error. What nobody who asks can mend is logged, and not told.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, detail := statusOf(err), err.Error()
	var ours *refusal
	switch {
	case errors.As(err, &ours):
		detail = ours.detail
	case status == http.StatusInternalServerError:
		a.Log.Error("a request failed", "method", r.Method, "path", r.URL.Path, "correlation", w.Header().Get(correlationHeader), "err", err)
		detail = "the server failed; its log says why under this request's " + correlationHeader
	}
	if hints := control.Hints(err); status == http.StatusServiceUnavailable && len(hints) > 0 {
		detail += ": " + strings.Join(hints, "; ")
	}
	problem(w, status, detail)
}
