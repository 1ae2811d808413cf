package ingest

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

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
)

// reasons are MQTT 5 reason codes in the words of somebody who runs a broker.
var reasons = map[byte]string{
	0x80: "unspecified error",
	0x81: "malformed packet",
	0x82: "protocol error",
	0x84: "it does not speak MQTT 5",
	0x85: "client id not valid",
	0x86: "user name or password wrong",
	0x87: "not authorised",
	0x88: "server unavailable",
	0x89: "server busy",
	0x8A: "banned",
	0x8B: "server shutting down",
	0x8D: "keep alive timeout",
	0x8E: "another client took the session over",
	0x8F: "topic filter not valid",
	0x93: "receive maximum exceeded",
	0x97: "quota exceeded",
	0x98: "administrative action",
	0x9C: "use another server",
	0x9D: "server moved",
	0x9F: "connection rate exceeded",
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

// connectError is what autopaho's error says without its prefix, which repeats the address.
func connectError(err error) error {
	if refusal, ok := errors.AsType[*autopaho.ConnackError](err); ok {
		return fmt.Errorf("broker refused the connection: %s", reason(refusal.ReasonCode, refusal.Reason))
	}
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}

func disconnectError(d *paho.Disconnect) error {
	var text string
	if d.Properties != nil {
		text = d.Properties.ReasonString
	}
	return fmt.Errorf("broker ended the connection: %s", reason(d.ReasonCode, text))
}

// subscribeError says which topic was refused, or what else went wrong.
func subscribeError(answer *paho.Suback, topics []string, err error) error {
	if answer == nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	var text string
	if answer.Properties != nil {
		text = answer.Properties.ReasonString
	}
	for i, code := range answer.Reasons {
		if code >= 0x80 && i < len(topics) {
			return fmt.Errorf("broker refused to subscribe %s: %s", topics[i], reason(code, text))
		}
	}
	return fmt.Errorf("subscribe: %w", err)
}

// explain puts what a person should look at before what the library said.
func explain(err error, host string) error {
	if what := explainTLS(err, host); what != "" {
		return fmt.Errorf("%s: %w", what, err)
	}
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return fmt.Errorf("host name %s not found: %w", host, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens there: %w", err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("broker does not answer: %w", err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("broker closed the connection: %w", err)
	}
	return err
}

func explainTLS(err error, host string) string {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		header    tls.RecordHeaderError
		operation *net.OpError
	)
	switch {
	case errors.As(err, &authority):
		return "broker's certificate is not signed by the trusted CA"
	case errors.As(err, &name):
		return "broker's certificate is not for " + host
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "broker's certificate has expired, or a clock is wrong"
	case errors.As(err, &invalid):
		return "broker's certificate is not valid"
	case errors.As(err, &header):
		return "broker does not speak TLS on this port"
	case errors.As(err, &operation) && operation.Op == "remote error": // an alert; crypto/tls does not export its type
		return "broker refused the TLS connection, perhaps for want of a client certificate"
	}
	return ""
}
