package network

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"syscall"
	"unicode"

	"github.com/plantops/plantops/broker/refusal"
)

// This file says why a connection failed before MQTT began. Nothing that the client sent is in it: a client that is set up
// wrongly sends its password where nobody expects it.

// First bytes by which clients on a wrong port are known.
const (
	tlsHandshakeRecord = 0x16 // how every TLS client begins; as MQTT it would be a malformed CONNECT
	mqttConnect        = 0x10
)

var (
	errPlainMQTT = errors.New("MQTT without websocket on the websocket port")
	errTLSThere  = errors.New("TLS on the websocket port, which has none")
	errNotHTTP   = errors.New("what came is no HTTP request")
	errGone      = errors.New("the client closed the connection before it had sent a whole request")
	errTooLarge  = errors.New("the request is too large")
)

// checkRequest looks at the first byte of what should be an HTTP request.
func checkRequest(r *bufio.Reader) error {
	first, err := r.Peek(1)
	switch {
	case err != nil:
		return requestFault(err)
	case first[0] == mqttConnect:
		return errPlainMQTT
	case first[0] == tlsHandshakeRecord:
		return errTLSThere
	case first[0] < 'A' || first[0] > 'Z':
		return errNotHTTP
	}
	return nil
}

// requestFault replaces an error of http.ReadRequest, which quotes what it could not read.
func requestFault(err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return errGone
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("the request did not come in time")
	}
	return errNotHTTP
}

// cleanOrigin is an origin as browsers send it. Only such a one is named, for who wants to add it to allowed_origins.
var cleanOrigin = regexp.MustCompile(`^https?://[A-Za-z0-9.\-]+(:[0-9]+)?$`)

// longestOrigin is that of what is named. A number in the expression would make it larger by as much: 44 kB.
const longestOrigin = 114

func foreignOrigin(origin string) error {
	if len(origin) <= longestOrigin && cleanOrigin.MatchString(origin) {
		return fmt.Errorf("the origin %s is not in allowed_origins", origin)
	}
	return errors.New("the origin is not in allowed_origins, and no browser's")
}

// revokedCertificate is the error of a handshake with a certificate that is revoked.
type revokedCertificate interface {
	error
	RevokedName() string // that the certificate gives; whoever shows it need not have the key
}

// handshakeReason sets revoked certificates apart from the other handshakes that fail.
func handshakeReason(err error) refusal.Refusal {
	if _, revoked := errors.AsType[revokedCertificate](err); revoked {
		return refusal.CertificateRevoked
	}
	return refusal.HandshakeFailed
}

const (
	notTLS       = "the client does not speak TLS"
	doesNotTrust = "the client does not trust the server certificate (wrong ca.crt, name or clock)"
)

// tlsCause adds to a handshake error what it usually means. crypto/tls has no types for most of these.
func tlsCause(err error) error {
	var noRecord tls.RecordHeaderError
	var badCertificate *tls.CertificateVerificationError
	text := err.Error()
	switch {
	case errors.As(err, &noRecord):
		return fmt.Errorf("%s: %w", plainOnTLS(noRecord.RecordHeader[0]), err)
	case errors.As(err, &badCertificate):
		return fmt.Errorf("the client certificate is not from our authority or not valid now: %w", err)
	case strings.Contains(text, "didn't provide a certificate"):
		return fmt.Errorf("the client has no certificate and this listener requires one: %w", err)
	case strings.Contains(text, "failed to parse"):
		return errors.New("the client certificate cannot be read")
	case strings.Contains(text, "remote error") && strings.Contains(text, "certificate"):
		return fmt.Errorf("%s: %w", doesNotTrust, err)
	case strings.Contains(text, "bad record MAC"):
		// OpenSSL's alert to a certificate that it refuses in TLS 1.3 is not encrypted as crypto/tls expects at that point.
		return fmt.Errorf("%s; or it broke off for another reason: %w", doesNotTrust, err)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("the client broke the handshake off, perhaps because it does not trust the server certificate: %w", err)
	case strings.Contains(text, "no cipher suite supported by both"):
		return fmt.Errorf("client and server have no cipher suite in common: %w", err)
	case strings.Contains(text, "unsupported versions"), strings.Contains(text, "protocol version not supported"):
		return fmt.Errorf("the client knows no version of TLS from 1.2 on: %w", err)
	case strings.Contains(text, "signature algorithms"):
		return fmt.Errorf("client and server have no signature algorithm in common: %w", err)
	}
	return err
}

func plainOnTLS(first byte) string {
	switch {
	case first == mqttConnect:
		return notTLS + ": MQTT without TLS on the TLS port"
	case first >= 'A' && first <= 'Z':
		return notTLS + ": HTTP without TLS on the TLS port"
	}
	return notTLS
}

// maxWords bounds what a log line says about an error of a library.
const maxWords = 300

// words is the text of an error without what it quotes: libraries quote what they could not read. Errors of a certificate that is
// revoked keep theirs: our authority has signed it.
func words(err error) string {
	if _, ours := errors.AsType[revokedCertificate](err); ours {
		return err.Error()
	}
	var out strings.Builder
	quoted, escaped := rune(0), false
	for _, r := range err.Error() {
		switch {
		case escaped:
			escaped = false
		case quoted == '"' && r == '\\': // as %q writes a quote that was in the text
			escaped = true
		case quoted != 0:
			if r == quoted {
				quoted = 0
				out.WriteString("…")
			}
		case r == '"' || r == '`':
			quoted = r
		case unicode.IsPrint(r):
			out.WriteRune(r)
		}
		if out.Len() >= maxWords {
			break
		}
	}
	return out.String()
}
