package broker

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/access"
	"github.com/plantops/plantops/broker/network"
	"github.com/plantops/plantops/broker/refusal"
)

// hook is everything that a connection asks, and what mochi asks us. Its methods run in the goroutine of the connection that they
// are about, unless said otherwise.
type hook struct {
	mqtt.HookBase
	server    *mqtt.Server
	log       *slog.Logger
	accounts  access.Accounts
	backend   Backend
	mustCert  bool                             // RequireCertificate
	isRevoked func([][]*x509.Certificate) bool // Options.Revoked
	maxLevels int
	name      Name                        // Options.Name
	reported  func(device, reason string) // Options.Refused
	now       func() time.Time

	router   *router
	sessions *sessions
	gate     *gate
	gateWait time.Duration

	packetTimeout time.Duration // see defaultPacketTimeout
	refusals      *refusal.Counters
	passes        passes
	accepted      atomic.Int64 // CONNECTs answered with success
	collectAt     atomic.Int64 // accepted, when garbage is collected next
}

func (h *hook) ID() string { return "plantops" }

func (h *hook) Provides(event byte) bool {
	return event == mqtt.OnPacketEncode || event == mqtt.OnPacketSent
}

// dieOfPanic is deferred where a connection's reader does what is ours. A panic of ours ends the program with a stack: the lock that it may hold would
// stop everybody for ever, and nothing would say so. One of mochi's, which decodes what strangers send and holds nothing of
// ours, ends the connection only (run in network/conn.go). It must come before what is deferred further out, which may want
// that lock.
func dieOfPanic() {
	if what := recover(); what != nil {
		stack := debug.Stack()
		go func() { panic(fmt.Sprintf("%v\n\n%s", what, stack)) }()
		select {}
	}
}

const (
	// collectAfter so many logins garbage is collected. Each leaves a hundred kilobytes of it, and between them what stays as long as
	// the connection: what lies so strewn cannot be given back. Measured with 5,000 idle TLS connections: 20 MiB of 100.
	collectAfter = 128
	// collectBytes of live heap make it so many logins more: what a collection costs goes with the heap, and somebody may log in
	// over and over.
	collectBytes = 32 << 20
)

// collect collects garbage where it is time for that after a login. Nobody waits for it but the client that has just logged in.
func (h *hook) collect() {
	accepted, due := h.accepted.Load(), h.collectAt.Load()
	if accepted < due || !h.collectAt.CompareAndSwap(due, math.MaxInt64) {
		return
	}
	runtime.GC()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	h.collectAt.Store(accepted + collectAfter*int64(1+live[0].Value.Uint64()/collectBytes))
}

// connect takes a CONNECT. An error ends the connection.
func (h *hook) connect(l *clientLink, pk *packets.Packet) error {
	connect := &pk.Connect
	connect.ClientIdentifier = strings.Clone(connect.ClientIdentifier) // the session keeps it, not the packet
	if l.emptyWill = connect.WillFlag && len(connect.WillPayload) == 0; l.emptyWill {
		connect.WillPayload = []byte{0} // mochi refuses a will without a payload, which may be sent
	}
	if pk.ProtocolVersion == 3 {
		pk.ReservedBit = 0 // it means nothing there
	}
	connect.WillRetain = connect.WillRetain && connect.WillFlag // mochi refuses the one without the other in MQTT 3.1 too
	if len(connect.Password) == 0 {
		connect.PasswordFlag = false // identify in auth.go has a word for it
	}
	cl := h.server.NewClient(l, l.Kind(), "", false)
	cl.ParseConnect(l.Kind(), *pk)
	l.id = cl.ID
	props := &cl.Properties.Props
	l.asked = asked{cl.Properties.ProtocolVersion, props.RequestProblemInfoFlag && props.RequestProblemInfo == 0, props.MaximumPacketSize}
	if code := pk.ConnectValidate(); code != packets.CodeSuccess {
		_ = h.server.SendConnack(cl, code, false, nil) // the connection is closed either way
		return code
	}
	if err := h.admit(l, cl, *pk); err != nil {
		if r, ok := err.(refusal.Refusal); ok {
			h.refuseConnect(l, cl, *pk, r)
		}
		return err
	}
	h.router.attach(l, pk)
	if err := h.server.SendConnack(cl, packets.CodeSuccess, l.present, nil); err != nil {
		return fmt.Errorf("send CONNACK: %w", err)
	}
	l.established.Store(true)
	h.accepted.Add(1)
	h.router.start(l)
	h.log.Info("client connected", append(l.attrs(), "version", cl.Properties.ProtocolVersion,
		"clean", cl.Properties.Clean, "keepalive", cl.State.Keepalive, "will", connect.WillFlag)...)
	h.collect()
	if h.gate.isClosed() && !h.isIngest(l) {
		h.sessions.end(l, packets.ErrServerShuttingDown) // it passed the gate while DisconnectDevices was looking around
	}
	return nil
}

// disconnected says why a connection has ended.
func (h *hook) disconnected(l *clientLink, err error) {
	if r, broken := brokenPacket(err); broken && !l.lost && l.because(r.Reason) {
		h.refused(l, r, "")
	}
	h.log.Info("client disconnected", append(l.attrs(), "reason", endReason(l, err))...)
}

// connectionEnded ends a connection's session when its reader has let go of the connection, in whatever way.
func (h *hook) connectionEnded(l *clientLink, err error, panicked bool) {
	defer dieOfPanic()
	if w := l.work; w != nil && w.granted.messages > 0 { // its round has not ended
		h.router.intake.takeBack(w)
	}
	if panicked {
		err = packets.ErrMalformedPacket
		if l.peer != nil && l.because(refusal.MalformedPacket.Reason) {
			h.refused(l, refusal.MalformedPacket, "")
		}
	}
	_ = l.Close() // it always closes
	if l.established.Load() {
		h.disconnected(l, err)
	}
	l.forgetAliases()
	h.router.detach(l)
}

// OnPacketSent counts the packets that mochi sends.
func (h *hook) OnPacketSent(*mqtt.Client, packets.Packet, []byte) { h.router.traffic.packetsOut.Add(1) }

// brokenPacket is the refusal of a packet that mochi could not read or would not take, when that is why it ended a connection.
func brokenPacket(err error) (refusal.Refusal, bool) {
	switch code, _ := errors.AsType[packets.Code](err); {
	case err == nil, errors.Is(err, network.ErrQueueFull), errors.Is(err, net.ErrClosed), code == packets.ErrRejectPacket: // our own
		return refusal.Refusal{}, false
	case code == packets.ErrPacketTooLarge:
		return refusal.PacketTooLarge, true
	case code.Code == packets.ErrProtocolViolation.Code:
		return refusal.ProtocolViolation, true
	}
	return refusal.MalformedPacket, true
}

// mochiLog is what mochi logs to. Its lines hold whole packets, payloads and on a second CONNECT the password too, and
// warn about every ordinary disconnect, one of them without any words. Here they become debug lines without packets:
// what a person should know (connections, refusals, losses) the hook and Stats say in our words.
type mochiLog struct{ next slog.Handler }

func (m mochiLog) Enabled(ctx context.Context, level slog.Level) bool {
	return m.next.Enabled(ctx, mochiLevel(level))
}

func (m mochiLog) Handle(ctx context.Context, r slog.Record) error {
	message := r.Message
	if message == "" {
		message = "no message"
	}
	out := slog.NewRecord(r.Time, mochiLevel(r.Level), "mochi: "+message, 0)
	r.Attrs(func(a slog.Attr) bool {
		if !holdsPacket(a) {
			out.AddAttrs(a)
		}
		return true
	})
	return m.next.Handle(ctx, out)
}

func (m mochiLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	var kept []slog.Attr
	for _, a := range attrs {
		if !holdsPacket(a) {
			kept = append(kept, a)
		}
	}
	return mochiLog{m.next.WithAttrs(kept)}
}

func (m mochiLog) WithGroup(name string) slog.Handler { return mochiLog{m.next.WithGroup(name)} }

// mochiLevel keeps errors, which a healthy mochi does not log, and lowers everything else.
func mochiLevel(level slog.Level) slog.Level {
	if level >= slog.LevelError {
		return level
	}
	return slog.LevelDebug
}

// holdsPacket lets only plain values through: whatever mochi adds under whatever key, no struct gets into the log.
func holdsPacket(a slog.Attr) bool {
	if a.Value.Kind() != slog.KindAny {
		return false
	}
	_, isError := a.Value.Any().(error)
	return !isError
}
