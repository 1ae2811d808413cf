package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"
)

const (
	beatEvery   = time.Minute
	beatTimeout = 20 * time.Second
)

// Heartbeat calls an address every minute while all is well, such as one of healthchecks.io: who waits for the call notices when the box is
// gone, which the box cannot tell. The address is a secret.
type Heartbeat struct {
	Address string
	Well    func(ctx context.Context) error // nil: all is well
	Log     *slog.Logger
}

// Run calls until ctx ends.
func (h *Heartbeat) Run(ctx context.Context) error {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	trouble, c := "", client()
	for {
		err := h.beat(ctx, c)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && err.Error() != trouble:
			trouble = err.Error()
			h.Log.Warn("no heartbeat goes out", "err", err)
		case err == nil && trouble != "":
			trouble = ""
			h.Log.Info("the heartbeat goes out again")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// beat calls once.
func (h *Heartbeat) beat(ctx context.Context, c *http.Client) error {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	if err := h.Well(ctx); err != nil {
		return fmt.Errorf("not all is well: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, h.Address, nil)
	if err != nil {
		return errors.New("alerts.heartbeat_url is no address")
	}
	request.Header.Set("User-Agent", "PlantOps")
	response, err := c.Do(request)
	if err != nil {
		return fmt.Errorf("call alerts.heartbeat_url: %w", withoutAddress(err))
	}
	defer func() { _ = response.Body.Close() }() // only read
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, mostAnswer))
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return fmt.Errorf("call alerts.heartbeat_url: it answers %s", response.Status)
	}
	return nil
}
