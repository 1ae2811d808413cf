package bridge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// endError is what went wrong at one broker.
type endError struct {
	o    *Broker
	err  error
	late bool // it had let us in
}

func (e *endError) Error() string {
	return fmt.Sprintf("%s at %s: %v", e.o.Name, e.o.Address, e.err)
}

func (e *endError) Unwrap() error { return e.err }

// refusedError is a CONNACK that lets us not in.
type refusedError struct {
	code byte
	text string
	old  bool // as MQTT 3.1.1 has it, with the codes of that
}

func (e *refusedError) Error() string {
	if e.old {
		return fmt.Sprintf("it refused the connection as a broker of MQTT 3.1.1 does (%d)", e.code)
	}
	return "it refused the connection: " + reason(e.code, e.text)
}

// endedError is a DISCONNECT.
type endedError struct {
	code byte
	text string
}

func (e *endedError) Error() string { return "it ended the connection: " + reason(e.code, e.text) }

// reasons are MQTT 5 reason codes in the words of somebody who runs a broker.
var reasons = map[byte]string{
	0x00: "it said goodbye",
	0x80: "unspecified error",
	0x81: "malformed packet",
	0x82: "protocol error",
	0x83: "it does not take this",
	0x84: "it does not speak MQTT 5",
	0x85: "client id not valid",
	0x86: "user name or password wrong",
	0x87: "not authorised",
	0x88: "server unavailable",
	0x89: "server busy",
	0x8A: "banned",
	0x8B: "server shutting down",
	0x8C: "authentication method not supported",
	0x8D: "keep alive timeout",
	0x8E: "another client took the session over",
	0x8F: "topic filter not valid",
	0x90: "topic not valid",
	0x91: "packet id in use",
	0x93: "receive maximum exceeded",
	0x95: "packet too large",
	0x96: "message rate too high",
	0x97: "quota exceeded",
	0x98: "administrative action",
	0x99: "payload format not valid",
	0x9A: "retained messages not supported",
	0x9B: "QoS not supported",
	0x9C: "use another server",
	0x9D: "server moved",
	0x9E: "shared subscriptions not supported",
	0x9F: "connection rate exceeded",
	0xA0: "maximum connect time",
	0xA2: "wildcard subscriptions not supported",
}

func reason(code byte, text string) string {
	words, ok := reasons[code]
	if !ok {
		words = "reason"
	}
	words = fmt.Sprintf("%s (0x%02X)", words, code)
	if text != "" {
		words += fmt.Sprintf(": %.200q", text)
	}
	return words
}

// noRoom tells whether a message may be taken another time.
func noRoom(code byte) bool { return code == 0x97 || code == 0x91 }

// blames tells whether a broker ends a connection with the code because of a message.
func blames(code byte) bool {
	switch code {
	case 0x81, 0x82, 0x87, 0x90, 0x94, 0x95, 0x99, 0x9A, 0x9B:
		return true
	}
	return false
}

// explain puts what a person should do behind what went wrong.
func explain(err error) error {
	var at *endError
	if err == nil || !errors.As(err, &at) {
		return err
	}
	if what := remedy(at.err, at.o, at.late); what != "" {
		return fmt.Errorf("%w; %s", err, what)
	}
	return err
}

const speakFive = "a bridge speaks MQTT 5 only: use a listener of that broker that speaks it, " +
	"or have that broker make the bridge to here"

func remedy(err error, o *Broker, late bool) string {
	host, _, _ := net.SplitHostPort(o.Address)
	var (
		refused *refusedError
		ended   *endedError
		dns     *net.DNSError
	)
	switch {
	case errors.As(err, &refused):
		return refusedRemedy(refused, o)
	case errors.As(err, &ended) && ended.code == 0x8E:
		return fmt.Sprintf("another client uses the client id %q there: give each bridge a client_id of its own", o.ClientID)
	case errors.As(err, &dns):
		return fmt.Sprintf("the name %s is not found: check address, and the DNS of this machine", host)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: check address, and whether that broker runs"
	case late:
		return "" // the next attempt says more
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "it does not answer: check the network, the port, and whether tls is what that port speaks"
	}
	if what := tlsRemedy(err, host); what != "" {
		return what
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		return "it closed the connection without a word: its log may say why; a port that speaks TLS does so when tls is false, " +
			"and a broker of MQTT 3.1.1 may do so when it is told MQTT 5"
	}
	return ""
}

func refusedRemedy(e *refusedError, o *Broker) string {
	switch {
	case e.old && e.code == 1, !e.old && e.code == 0x84:
		return speakFive
	case e.old && e.code == 2, !e.old && e.code == 0x85:
		return fmt.Sprintf("set client_id to one that it takes; it was %q", o.ClientID)
	case e.old && e.code >= 4, e.code == 0x86, e.code == 0x87:
		return fmt.Sprintf("check username (%q) and password, and what that account may do there", o.Username)
	}
	return ""
}

func tlsRemedy(err error, host string) string {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		header    tls.RecordHeaderError
		operation *net.OpError
	)
	switch {
	case errors.As(err, &authority):
		return "its certificate is not signed by a trusted authority: set ca_cert to the certificate of the authority that signed it"
	case errors.As(err, &name):
		return fmt.Sprintf("its certificate is not for %s: set address to a name in the certificate", host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate has expired, or a clock is wrong"
	case errors.As(err, &invalid):
		return "its certificate is not valid"
	case errors.As(err, &header):
		return "it does not speak TLS on this port: check the port, or set tls to false"
	case errors.As(err, &operation) && operation.Op == "remote error": // an alert; crypto/tls does not export its type
		return "it refused the TLS connection: it may ask for client_cert and client_key, or for alpn"
	}
	return ""
}
