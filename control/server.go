package control

import (
	"context"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plantops/plantops/bridge"
	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/ingest"
	"github.com/plantops/plantops/ingest/source"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/garden"
	"github.com/plantops/plantops/store/keep"
)

// Options are what a Server is made of. The caller closes what is in them, after the last call.
type Options struct {
	Store     *store.Store     // must be set; for Status and Contact it may be read-only
	Authority *certs.Authority // nil without certificates
	// Listeners are the configured addresses, told for as long as no broker runs that has bound some.
	Listeners Contact
	// BackendUsername is whom the subscriber logs in as. No account may have that name.
	BackendUsername string
	// OfflineAfter is how long a device counts as online after it was last seen.
	OfflineAfter time.Duration
	// Keep is how long readings are kept; 0: for ever.
	Keep time.Duration
	// Rules are for some devices in place of Keep.
	Rules keep.Rules
	// MaxBytes is how much the database may have in use; 0: any.
	MaxBytes int64
	Backup   BackupPlan
	Version  string           // of the program
	Now      func() time.Time // nil is time.Now
	// Doubt says in words why Now is not to be trusted; "": it is. nil: always.
	Doubt   func() string
	Sources *source.Set // for what is replayed from quarantine; nil: none
	Running *Running    // nil when no server runs in this process
}

// Running is what only a running server has.
type Running struct {
	Broker     *broker.Broker // nil when the broker is another program
	Subscriber *ingest.Subscriber
	// BrokerAddress is where Subscriber connects to, UsesTLS whether with TLS.
	BrokerAddress string
	UsesTLS       bool
	// Fault says why messages do not come through from the broker into the store; nil while they do, as far as is known.
	Fault   func() error
	Started time.Time
	// CertificatesChanged is called when they were read again. May be nil.
	CertificatesChanged func()
	// Retain lets the part that deletes by age look now. May be nil.
	Retain func()
	// Bridges tells how those to other brokers are. nil: there are none.
	Bridges func() []bridge.Status
	Web     Web // nil: no page is served
	// Alerts judges and tells. nil: nobody does.
	Alerts Alerting
	Before Baseline // what the database held before the broker let anybody in
}

// Server is one data directory with what is open of it: the server that runs in this process or, without Options.Running,
// what a server left there. It is safe for concurrent use.
type Server struct {
	store           *store.Store
	authority       *certs.Authority
	listeners       Contact
	backendUsername string
	version         string
	now             func() time.Time
	running         *Running
	keep            time.Duration
	rules           keep.Rules
	doubt           func() string
	maxBytes        int64
	backup          BackupPlan
	retaining       sync.Mutex // held while what is deleted by age or size changes
	lastUsed        int64      // bytes in use when DeleteForSize ended last
	sources         *source.Set

	offlineAfter atomic.Int64 // nanoseconds; can change while the server runs

	imports imports     // since the start
	wasLow  atomic.Bool // the disk, when Faults looked last

	mu     sync.Mutex
	purged map[string]int64 // takes the place of Baseline.devices
}

var _, _ Operator = (*Server)(nil), (*Client)(nil)

// New returns a Server; it starts nothing.
func New(o Options) *Server {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Doubt == nil {
		o.Doubt = func() string { return "" }
	}
	s := &Server{keep: o.Keep, rules: o.Rules, maxBytes: o.MaxBytes, backup: o.Backup, doubt: o.Doubt, store: o.Store, authority: o.Authority, listeners: o.Listeners, backendUsername: o.BackendUsername,
		version: o.Version, now: o.Now, running: o.Running, sources: o.Sources}
	s.SetOfflineAfter(o.OfflineAfter)
	return s
}

// SetOfflineAfter changes Options.OfflineAfter from now on.
func (s *Server) SetOfflineAfter(d time.Duration) { s.offlineAfter.Store(int64(d)) }

// OfflineAfter is how long a device counts as online after it was last seen.
func (s *Server) OfflineAfter() time.Duration { return time.Duration(s.offlineAfter.Load()) }

// broker is nil where none runs in this process.
func (s *Server) broker() *broker.Broker {
	if s.running == nil {
		return nil
	}
	return s.running.Broker
}

// Contact is how devices reach the server.
type Contact struct {
	TCP       string `json:"tcp,omitempty"` // addresses, host:port; empty: no such listener
	TLS       string `json:"tls,omitempty"`
	WebSocket string `json:"websocket,omitempty"`
	CA        string `json:"ca,omitempty"` // PEM; empty: none made yet
	// Servers are the certificates that the TLS listener shows, PEM, without those of the authority: one for each kind of key.
	Servers string `json:"servers,omitempty"`
}

// Bound is the Contact of the addresses that a broker has bound, without CA.
func Bound(a broker.Addrs) Contact {
	text := func(a net.Addr) string {
		if a == nil {
			return ""
		}
		return a.String()
	}
	return Contact{TCP: text(a.TCP), TLS: text(a.TLS), WebSocket: text(a.WebSocket)}
}

// Contact implements Operator.
func (s *Server) Contact(context.Context) (Contact, error) {
	c := s.listeners
	if b := s.broker(); b != nil {
		c = Bound(b.Addrs())
	}
	c.CA, c.Servers = "", ""
	if s.authority != nil {
		c.CA = string(s.authority.RootPEM())
		c.Servers = serverCertificates(s.authority)
	}
	return c, nil
}

// serverCertificates reads the leaf of each of the server's chains. What cannot be read is left out: whoever needs it says so.
func serverCertificates(authority *certs.Authority) string {
	var all []byte
	for _, info := range authority.Certificates() {
		if info.Role != "server" {
			continue
		}
		text, err := os.ReadFile(info.Path)
		if err != nil {
			continue
		}
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			if block.Type == "CERTIFICATE" { // never anything else that may be in the file
				all = append(all, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
				break
			}
		}
	}
	return string(all)
}

// Refusals implements Operator.
func (s *Server) Refusals(context.Context) (Refusals, error) {
	if b := s.broker(); b != nil {
		return newRefusals(b.Refusals()), nil
	}
	return Refusals{}, nil // another broker does not tell
}

// Probe implements Operator.
func (s *Server) Probe(ctx context.Context) error {
	b := s.broker()
	if b == nil {
		return fmt.Errorf("probe the path into the store: %w", ErrNoBroker)
	}
	return b.Probe(ctx)
}

// AddDevice implements Operator. Its error wraps store.ErrInvalidID also for the subscriber's own name.
func (s *Server) AddDevice(ctx context.Context, id string) (string, error) {
	if err := s.checkName(id); err != nil {
		return "", fmt.Errorf("add device: %w", err)
	}
	return s.store.AddDevice(ctx, id)
}

// AddOtherDevice implements Operator.
func (s *Server) AddOtherDevice(ctx context.Context, id string, publish, subscribe []string) (string, error) {
	if err := s.checkName(id); err != nil {
		return "", fmt.Errorf("add device: %w", err)
	}
	return s.store.AddOtherDevice(ctx, id, publish, subscribe)
}

// checkName refuses the subscriber's name where the configuration gives it another than the one that the store knows of:
// the broker would never ask for such an account.
func (s *Server) checkName(name string) error {
	if name == s.backendUsername {
		return fmt.Errorf("%w %q: it is mqtt.backend_username", store.ErrInvalidID, name)
	}
	return nil
}

// RegisterDevice lets a device register by itself (store.RegisterDevice): when it returns, the broker knows the new secret, and who came with
// the old one is cut off. ErrNoBroker: the broker is another program, which knows nothing of our accounts.
func (s *Server) RegisterDevice(ctx context.Context, r garden.Registration) (device, secret string, err error) {
	if s.broker() == nil {
		return "", "", fmt.Errorf("register device: %w", ErrNoBroker)
	}
	device, secret, err = s.store.RegisterDevice(ctx, r)
	if err == nil {
		s.disconnect(device, "it registered anew")
	}
	return device, secret, err
}

// RotateDevice implements Operator.
func (s *Server) RotateDevice(ctx context.Context, id string) (string, error) {
	secret, err := s.store.RotateDevice(ctx, id)
	if err == nil {
		s.disconnect(id, "its password was changed")
	}
	return secret, err
}

// PurgeDevice implements Operator.
func (s *Server) PurgeDevice(ctx context.Context, id string) (int64, error) {
	n, err := s.store.PurgeDevice(ctx, id)
	if err == nil && s.running != nil {
		s.rebase(id, s.arrived().Devices[id])
	}
	return n, err
}

// RemoveDevice implements Operator.
func (s *Server) RemoveDevice(ctx context.Context, id string) error {
	err := s.store.RemoveDevice(ctx, id)
	if err == nil {
		s.disconnect(id, "it was removed")
	}
	return err
}

// AddUser implements Operator.
func (s *Server) AddUser(ctx context.Context, u store.NewUser) error {
	if err := s.checkName(u.Name); err != nil {
		return fmt.Errorf("add user: %w", err)
	}
	return s.store.AddUser(ctx, u)
}

// SetPassword implements Operator.
func (s *Server) SetPassword(ctx context.Context, name, password string) error {
	err := s.store.SetPassword(ctx, name, password)
	if err == nil {
		s.disconnect(name, "its password was changed")
	}
	return err
}

// RemoveUser implements Operator.
func (s *Server) RemoveUser(ctx context.Context, name string) error {
	err := s.store.RemoveUser(ctx, name)
	if err == nil {
		s.disconnect(name, "it was removed")
	}
	return err
}

func (s *Server) disconnect(id, reason string) {
	if b := s.broker(); b != nil {
		b.Disconnect(id, reason)
	}
}

// ReloadCertificates implements Operator.
func (s *Server) ReloadCertificates(context.Context) (int64, error) {
	if s.authority == nil {
		return 0, nil
	}
	if err := s.authority.Reload(); err != nil {
		return 0, err
	}
	if s.running != nil && s.running.CertificatesChanged != nil {
		s.running.CertificatesChanged()
	}
	return s.EndRevoked(), nil
}

// EndRevoked ends the connections whose certificate is revoked as far as the authority has read, and returns how many.
func (s *Server) EndRevoked() int64 {
	if b := s.broker(); b != nil {
		return int64(b.EndRevoked())
	}
	return 0
}

// Replayed is what became of quarantined messages that were tried again.
type Replayed struct {
	Stored    int64 `json:"stored"`    // now readings, or known already
	Remaining int64 `json:"remaining"` // still not usable
}

// ReplayQuarantine implements Operator.
func (s *Server) ReplayQuarantine(ctx context.Context, ids []int64) (Replayed, error) {
	var result Replayed
	if len(ids) == 0 {
		for entry, err := range s.store.Quarantine(ctx, 0) {
			if err != nil {
				return result, err
			}
			if err := s.replay(ctx, entry, &result); err != nil {
				return result, err
			}
		}
		return result, nil
	}
	for _, id := range ids {
		entry, err := s.store.QuarantineEntry(ctx, id)
		if err != nil {
			return result, err
		}
		if err := s.replay(ctx, entry, &result); err != nil {
			return result, err
		}
	}
	return result, nil
}

func (s *Server) replay(ctx context.Context, entry store.QuarantineEntry, result *Replayed) error {
	message := ingest.DecodeWith(s.sources, ingest.Arrived{Topic: entry.Topic, Payload: entry.Payload, Time: entry.Time,
		ClockUnsure: entry.ClockUnsure})
	message.ClockLine = entry.ClockLine
	outcome, err := s.store.ReplayQuarantined(ctx, entry.ID, message)
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

// PurgeQuarantine implements Operator.
func (s *Server) PurgeQuarantine(ctx context.Context, ids []int64) (int64, error) {
	return s.store.PurgeQuarantine(ctx, ids...)
}
