// Package doctor proves a running box: what devices see of it, the way of a message into the database, and the machine below.
// It is told the facts and how to connect; it finds, and says how to repair. Printing and exit codes are for the command.
//
//	doctor.go    findings, and the order of the checks
//	server.go    what the server says about itself, and a message through to the database
//	network.go   listeners, TLS as a device sees it, MQTT over websocket
//	machine.go   clock, disk, memory, permissions
//	wear.go      what an SD card or eMMC says about its age
package doctor

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/plantops/plantops/control"
)

// State is how one check ended.
type State string

const (
	OK   State = "ok"
	Warn State = "warn" // works, but a person should look at it
	Fail State = "fail"
	Skip State = "skip" // could not be checked; Found says why
)

// Finding is the end of one check.
type Finding struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	Found  string `json:"found"`
	Repair string `json:"repair,omitempty"` // of a warning or a failure, never empty there
}

// Report is all of them.
type Report struct {
	Healthy bool      `json:"healthy"` // no check failed
	Checks  []Finding `json:"checks"`
}

// Add adds a finding.
func (r *Report) Add(f Finding) { r.Checks = append(r.Checks, f) }

// Close settles Healthy.
func (r *Report) Close() {
	r.Healthy = true
	for _, f := range r.Checks {
		r.Healthy = r.Healthy && f.State != Fail
	}
}

// Patient is what there is to know about the box before looking at it.
type Patient struct {
	DataDir, StorePath, CertsDir string
	BackendUsername              string
	// Listeners are the configured addresses by name, "tcp", "tls", "websocket"; those that are off are left out.
	Listeners map[string]string
	// Settings are the keys of the configuration that those addresses come from.
	Settings map[string]string
	// Names are how devices call this machine.
	Names []string
	// Built is when this program was made: no right clock shows less. Zero: not known.
	Built time.Time
	Now   func() time.Time
	// StallTimeout is how long a device waits for its acknowledgement.
	StallTimeout time.Duration
	// Patience bounds each check.
	Patience time.Duration
	// Root is "/"; another one for tests, below which /proc and /sys are looked for.
	Root string

	// Server asks the running one; nil when none runs, and ServerErr says why.
	Server    control.Operator
	ServerErr error
	// ClientTLS is how a device that trusts our CA connects to the TLS listener, with a certificate of its own where one is asked for.
	ClientTLS func(reach control.Contact, account string) (*tls.Config, error)
	// Send connects to a listener, publishes one message with QoS 1 and returns nil when it is acknowledged.
	Send func(ctx context.Context, address string, secure *tls.Config, account, password, topic string) error
}

// Examine does all checks, one after the other. It returns also when ctx ends: what could not be checked then failed.
func Examine(ctx context.Context, p Patient) Report {
	var r Report
	status := p.checkServer(ctx, &r)
	p.checkListeners(ctx, &r)
	p.checkPath(ctx, &r)
	p.checkCertificates(&r, status)
	p.checkClock(&r, status)
	p.checkDisk(&r)
	p.checkWear(&r)
	p.checkMemory(&r, status)
	p.checkPermissions(&r)
	p.checkBackup(&r, status)
	r.Close()
	return r
}

func (p Patient) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, p.Patience)
}
