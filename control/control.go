// Package control is what a running server tells and is told: how it is (Status), what became of every message
// (Equation), what it refused to whom, and the orders that change its accounts, certificates and quarantine.
//
//	server.go     Server: the model, with or without a running broker and subscriber, and the orders
//	status.go     Status and whether the server is alive
//	authority.go  who trusts which certificate authority
//	equation.go   the equation, read until both sides agree
//	retention.go  deleting by age, and what a person confirms of it
//	growth.go     how fast the database grows, how long the disk lasts, deleting by size
//	backup.go     what is known of backups
//	corrections.go  calibrations, voided ranges, derived metrics
//	device.go     a device as people and programs are shown it
//	refusals.go   what each account was refused
//	alerts.go     alerts, their channels, what is wrong with the box
//	broker.go     sessions and retained messages of the embedded broker
//	unread.go     what could not be read of a device's messages, and topics that nobody reads
//	socket.go     the control socket, through which other processes reach the Server
//	client.go     Client: the other end of it
//	lock.go       the lock of the data directory, whose holder owns the socket
//	errors.go     kinds of failure, and remedies on their way to a person
//	hints.go      the remedies that are known for a kind of error
//	web.go        bearer tokens, the pairing window, one-time links of the web page
//	moment.go     times and sizes as programs and people read them
//
// It prints nothing and knows no command line: cmd/plantops decides about exit codes and tables. What the configuration
// says comes in through Options. Its types are JSON for programs; field names and units in it stay as they are.
package control

import (
	"context"
	"time"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/backup"
)

// Operator is what a server can be asked and told. *Server does it in this process, *Client asks the one that is running.
// Errors are those of store, also through a Client: ErrExists, ErrNotFound, ErrOtherRole, ErrInvalidID,
// ErrInvalidFilter, ErrInvalidPassword, ErrFull, ErrLocked, ErrInDoubt. A Client adds ErrUnreachable.
type Operator interface {
	// Status looks at everything. It fails only when the database does not answer.
	Status(ctx context.Context) (Status, error)
	// Contact is how devices reach the server: the bound addresses or, when none runs, the configured ones.
	Contact(ctx context.Context) (Contact, error)
	// Refusals are those of the embedded broker; empty without one.
	Refusals(ctx context.Context) (Refusals, error)
	// Probe sends a message the way that readings go and returns when it is committed. ErrNoBroker: the broker is another program, or
	// no server runs.
	Probe(ctx context.Context) error
	// Pass is a user name and a password that let somebody into the embedded broker once, within a minute, as the backend. This
	// and what follows up to ClearRetained fails with ErrNoBroker where there is none.
	Pass(ctx context.Context) (Pass, error)
	// Sessions are those of the embedded broker's clients, connected or away.
	Sessions(ctx context.Context) ([]Session, error)
	// EndSession ends one of them, with what waits in it.
	EndSession(ctx context.Context, client string) error
	// Retained are at most limit of the messages that the filter matches; 0 is all.
	Retained(ctx context.Context, filter string, limit int) ([]Retained, error)
	// ClearRetained removes the messages that the filter matches, and returns how many.
	ClearRetained(ctx context.Context, filter string) (int64, error)
	// Unread are the topics that nobody reads, of the embedded broker; empty without one.
	Unread(ctx context.Context) (Unread, error)
	// AddDevice registers a device and returns its secret, which nobody can be told again.
	AddDevice(ctx context.Context, id string) (secret string, err error)
	// AddOtherDevice registers a device that uses these topics, in place of all below devices/ID/.
	AddOtherDevice(ctx context.Context, id string, publish, subscribe []string) (secret string, err error)
	// RotateDevice gives a device a new secret and ends the session that the old one opened.
	RotateDevice(ctx context.Context, id string) (secret string, err error)
	// RemoveDevice takes a device's access and ends its session; its readings stay.
	RemoveDevice(ctx context.Context, id string) error
	// PurgeDevice deletes all readings of a device that was removed, and returns how many messages that were.
	PurgeDevice(ctx context.Context, id string) (int64, error)
	// AddUser lets a person or another program in.
	AddUser(ctx context.Context, u store.NewUser) error
	// SetPassword gives a user another password and ends the sessions that the old one opened.
	SetPassword(ctx context.Context, name, password string) error
	// RemoveUser takes a user's access and ends its sessions.
	RemoveUser(ctx context.Context, name string) error
	// ReloadCertificates reads certificates and revocation list again, and returns how many connections had a certificate
	// that is revoked now. They are ended.
	ReloadCertificates(ctx context.Context) (ended int64, err error)
	// ReplayQuarantine decodes quarantined messages again; those that are usable now become readings and leave the
	// quarantine. No ids means all.
	ReplayQuarantine(ctx context.Context, ids []int64) (Replayed, error)
	// PurgeQuarantine deletes quarantined messages for good and returns how many. No ids means all.
	PurgeQuarantine(ctx context.Context, ids []int64) (int64, error)
	// ImportHistory stores readings of long ago. They prove of no device that it lives, and what cannot be stored goes nowhere: the
	// outcome tells it. After an error some of it may be stored; given again, that is a duplicate.
	ImportHistory(ctx context.Context, h History) (HistoryOutcome, error)
	// HistoryPlace is what the last History said that had a Place with that key; "" for none.
	HistoryPlace(ctx context.Context, key string) (string, error)
	// Retention tells what deleting by age has done and what waits. It reads all that waits.
	Retention(ctx context.Context) (WaitingRetention, error)
	// ConfirmRetention lets everything before the Due times go at once that a person has seen.
	// A running server begins now, otherwise the next one does. The error wraps ErrNothingToConfirm.
	ConfirmRetention(ctx context.Context, seen Retention) error
	// Calibrate corrects a metric of a device from a time on, and returns it with its version. Only From, Points, Note and what it is
	// of are read.
	Calibrate(ctx context.Context, c Calibration) (Calibration, error)
	// Void takes readings out of what is read, and returns the range with its id.
	Void(ctx context.Context, v Void) (Void, error)
	// Unvoid takes a voided range back.
	Unvoid(ctx context.Context, id int64) error
	// Derive adds a derived metric, or another formula for it.
	Derive(ctx context.Context, formula string) (Derived, error)
	// RemoveDerived takes it away.
	RemoveDerived(ctx context.Context, name string) error
	// AddToken makes a bearer token for the web page's API and returns its secret, which nobody can be told again. The errors wrap those of
	// store/people: ErrInvalidName, ErrInvalidRole, ErrExists, ErrMany.
	AddToken(ctx context.Context, name string, role store.WebRole) (secret string, err error)
	// RemoveToken ends a token at once. The error wraps people.ErrNotFound.
	RemoveToken(ctx context.Context, name string) error
	// Pair opens the pairing window. This and OpenWeb fail with ErrNoWeb where no page is served.
	Pair(ctx context.Context, d time.Duration) (Pairing, error)
	// OpenWeb makes a one-time link to the page: for an account or, without one, for who owns this machine.
	OpenWeb(ctx context.Context, account string) (WebLink, error)
	// Alerts are at most limit of them, the newest first, with their channels. This and what follows up to TestAlerts fails with
	// ErrUnreachable where no server runs.
	Alerts(ctx context.Context, limit int) (Alerts, error)
	// AcknowledgeAlert notes that somebody knows of it. The error wraps alert.ErrNotFound.
	AcknowledgeAlert(ctx context.Context, id int64, by string) error
	// SnoozeAlert has nothing said of it for a time. The error wraps alert.ErrNotFound.
	SnoozeAlert(ctx context.Context, id int64, length time.Duration) error
	// TestAlerts sends a test to a channel. The error wraps notify.ErrNoChannel.
	TestAlerts(ctx context.Context, channel string) error
	// NoteBackup remembers a backup that a person made, for Status.
	NoteBackup(ctx context.Context, e backup.Entry) error
}
