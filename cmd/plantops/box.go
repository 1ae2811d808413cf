package main

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/ingest"
	"github.com/plantops/plantops/store"
)

// operator is what commands do to a box. *box does it in this process, *controlClient asks the server
// that is running.
type operator interface {
	Status(ctx context.Context) (status, error)
	Contact(ctx context.Context) (contact, error)
	Refusals(ctx context.Context) (refusals, error)
	AddDevice(ctx context.Context, id string) (secret string, err error)
	RotateDevice(ctx context.Context, id string) (secret string, err error)
	RemoveDevice(ctx context.Context, id string) error
	AddUser(ctx context.Context, u store.NewUser) error
	SetPassword(ctx context.Context, name, password string) error
	RemoveUser(ctx context.Context, name string) error
	ReloadCertificates(ctx context.Context) (ended int64, err error)
	ReplayQuarantine(ctx context.Context, ids []int64) (replayed, error)
	PurgeQuarantine(ctx context.Context, ids []int64) (int64, error)
}

// box is one data directory with what is open of it. broker, authority and subscriber are nil where
// they do not exist, broker and subscriber also where no server runs in this process.
type box struct {
	cfg        config.Config
	build      build
	now        func() time.Time
	store      *store.Store
	authority  *certs.Authority
	broker     *broker.Broker
	subscriber *ingest.Subscriber
	endToEnd   *endToEnd // nil without a server
	started    time.Time
	before     baseline // what the database held when the server started

	brokerAddress string       // where the subscriber connects to
	offlineAfter  atomic.Int64 // nanoseconds; can change while the server runs
}

// newBox returns a box without a server.
func (a *app) newBox(cfg config.Config, db *store.Store) *box {
	b := &box{cfg: cfg, build: a.build, now: a.now, store: db}
	b.offlineAfter.Store(int64(cfg.Ingest.OfflineAfter))
	return b
}

// contact is how devices reach the box.
type contact struct {
	TCP       string `json:"tcp,omitempty"` // bound addresses; empty: no such listener
	TLS       string `json:"tls,omitempty"`
	WebSocket string `json:"websocket,omitempty"`
	CA        string `json:"ca,omitempty"` // PEM; empty: none made yet
}

func (b *box) Contact(context.Context) (contact, error) {
	c := contact{}
	if b.authority != nil {
		c.CA = string(b.authority.RootPEM())
	}
	if b.broker != nil {
		a := b.broker.Addrs()
		c.TCP, c.TLS, c.WebSocket = addrText(a.TCP), addrText(a.TLS), addrText(a.WebSocket)
		return c, nil
	}
	l := b.cfg.Listeners
	if l.TCP.Enabled {
		c.TCP = l.TCP.Address
	}
	if l.TLS.Enabled {
		c.TLS = l.TLS.Address
	}
	if l.WebSocket.Enabled {
		c.WebSocket = l.WebSocket.Address
	}
	return c, nil
}

func (b *box) AddDevice(ctx context.Context, id string) (string, error) {
	if err := b.checkName(id); err != nil {
		return "", fmt.Errorf("add device: %w", err)
	}
	return b.store.AddDevice(ctx, id)
}

// checkName refuses the subscriber's name where the configuration gives it another than the one that the store knows of:
// the broker would never ask for such an account.
func (b *box) checkName(name string) error {
	if name == b.cfg.MQTT.BackendUsername {
		return fmt.Errorf("%w %q: it is mqtt.backend_username", store.ErrInvalidID, name)
	}
	return nil
}

// RotateDevice gives a device a new secret and ends the session that the old one opened.
func (b *box) RotateDevice(ctx context.Context, id string) (string, error) {
	secret, err := b.store.RotateDevice(ctx, id)
	if err == nil {
		b.disconnect(id, "its password was changed")
	}
	return secret, err
}

// RemoveDevice takes a device's access and ends its session; its readings stay.
func (b *box) RemoveDevice(ctx context.Context, id string) error {
	err := b.store.RemoveDevice(ctx, id)
	if err == nil {
		b.disconnect(id, "it was removed")
	}
	return err
}

// AddUser lets a person or another program in.
func (b *box) AddUser(ctx context.Context, u store.NewUser) error {
	if err := b.checkName(u.Name); err != nil {
		return fmt.Errorf("add user: %w", err)
	}
	return b.store.AddUser(ctx, u)
}

// SetPassword gives a user another password and ends the sessions that the old one opened.
func (b *box) SetPassword(ctx context.Context, name, password string) error {
	err := b.store.SetPassword(ctx, name, password)
	if err == nil {
		b.disconnect(name, "its password was changed")
	}
	return err
}

// RemoveUser takes a user's access and ends its sessions.
func (b *box) RemoveUser(ctx context.Context, name string) error {
	err := b.store.RemoveUser(ctx, name)
	if err == nil {
		b.disconnect(name, "it was removed")
	}
	return err
}

func (b *box) disconnect(id, reason string) {
	if b.broker != nil {
		b.broker.Disconnect(id, reason)
	}
}

// ReloadCertificates reads certificates and revocation list again, and returns how many connections had a certificate
// that is revoked now. They are ended.
func (b *box) ReloadCertificates(context.Context) (int64, error) {
	if b.authority == nil {
		return 0, nil
	}
	if err := b.authority.Reload(); err != nil {
		return 0, err
	}
	return b.endRevoked(), nil
}

func (b *box) endRevoked() int64 {
	if b.broker == nil {
		return 0
	}
	return int64(b.broker.EndRevoked())
}

// replayed is what became of quarantined messages that were tried again.
type replayed struct {
	Stored    int64 `json:"stored"`    // now readings, or known already
	Remaining int64 `json:"remaining"` // still not usable
}

// ReplayQuarantine decodes quarantined messages again; those that are usable now become readings and
// leave the quarantine. No ids means all.
func (b *box) ReplayQuarantine(ctx context.Context, ids []int64) (replayed, error) {
	var result replayed
	if len(ids) == 0 {
		for entry, err := range b.store.Quarantine(ctx, 0) {
			if err != nil {
				return result, err
			}
			if err := b.replay(ctx, entry, &result); err != nil {
				return result, err
			}
		}
		return result, nil
	}
	for _, id := range ids {
		entry, err := b.store.QuarantineEntry(ctx, id)
		if err != nil {
			return result, err
		}
		if err := b.replay(ctx, entry, &result); err != nil {
			return result, err
		}
	}
	return result, nil
}

func (b *box) replay(ctx context.Context, entry store.QuarantineEntry, result *replayed) error {
	message := ingest.Decode(entry.Topic, entry.Payload, entry.Time, entry.ClockUnsure)
	outcome, err := b.store.ReplayQuarantined(ctx, entry.ID, message)
	switch {
	case err != nil:
		return err
	case outcome == store.Quarantined:
		result.Remaining++
	default:
		result.Stored++
	}
	return nil
}

// PurgeQuarantine deletes quarantined messages for good and returns how many. No ids means all.
func (b *box) PurgeQuarantine(ctx context.Context, ids []int64) (int64, error) {
	return b.store.PurgeQuarantine(ctx, ids...)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
