package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/smtp"
	"net/textproto"
	"strings"
	"time"
)

// Encryption is how mail goes to its server.
type Encryption string

// The ways. StartTLS fails where the server does not offer it; None is for a server on this machine.
const (
	StartTLS    Encryption = "starttls"
	ImplicitTLS Encryption = "tls"
	None        Encryption = "none"
)

// EmailOptions say how mail is sent.
type EmailOptions struct {
	Server             string // host:port
	Encryption         Encryption
	Username, Password string // no name: no login
	From               string
	To                 []string
	Zone               *time.Location
	Now                func() time.Time
	Roots              *x509.CertPool // nil: those of the system
}

// Email sends mail.
type Email struct {
	EmailOptions
	host string
	from *mail.Address
	to   []*mail.Address
}

// NewEmail checks the addresses.
func NewEmail(o EmailOptions) (*Email, error) {
	host, _, err := net.SplitHostPort(o.Server)
	if err != nil || host == "" {
		return nil, errors.New("server must be host:port, for example mail.example.org:587")
	}
	m := &Email{EmailOptions: o, host: host}
	if m.from, err = mail.ParseAddress(o.From); err != nil {
		return nil, errors.New("from must be an address, for example plantops@example.org")
	}
	for _, text := range o.To {
		to, err := mail.ParseAddress(text)
		if err != nil {
			return nil, errors.New("each item of to must be an address, for example anna@example.org")
		}
		m.to = append(m.to, to)
	}
	if len(m.to) == 0 {
		return nil, errors.New("to must have at least one address")
	}
	return m, nil
}

// Send implements Channel.
func (m *Email) Send(ctx context.Context, e *Envelope) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", m.Server)
	if err != nil {
		return err
	}
	plain := conn
	stop := context.AfterFunc(ctx, func() { _ = plain.SetDeadline(time.Unix(1, 0)) }) // who waits for it gets a timeout
	defer stop()
	config := &tls.Config{ServerName: m.host, RootCAs: m.Roots, MinVersion: tls.VersionTLS12}
	if m.Encryption == ImplicitTLS {
		conn = tls.Client(conn, config)
	}
	defer func() { _ = conn.Close() }() // the conversation is over
	c, err := smtp.NewClient(conn, m.host)
	if err != nil {
		return mailError("begin", err)
	}
	if m.Encryption == StartTLS {
		if err := c.StartTLS(config); err != nil {
			return mailError("begin TLS", err)
		}
	}
	if m.Username != "" {
		if err := c.Auth(smtp.PlainAuth("", m.Username, m.Password, m.host)); err != nil {
			return mailError("log in", err)
		}
	}
	return m.deliver(c, e)
}

func (m *Email) deliver(c *smtp.Client, e *Envelope) error {
	text, err := m.text(e)
	if err != nil {
		return err
	}
	if err := c.Mail(m.from.Address); err != nil {
		return mailError("name the sender", err)
	}
	for _, to := range m.to {
		if err := c.Rcpt(to.Address); err != nil {
			return mailError("name who gets it", err)
		}
	}
	w, err := c.Data()
	if err != nil {
		return mailError("begin the text", err)
	}
	if _, err := w.Write(text); err != nil {
		return mailError("send the text", err)
	}
	if err := w.Close(); err != nil {
		return mailError("end the text", err)
	}
	_ = c.Quit() // it has been taken
	return nil
}

// mailError says at which step it went wrong. 5xx to the text itself, 552 and 554, is a refusal of the message.
func mailError(step string, err error) error {
	if said, ok := errors.AsType[*textproto.Error](err); ok && (said.Code == 552 || said.Code == 554) && strings.HasSuffix(step, "text") {
		return fmt.Errorf("%w: %s: %w", ErrRefused, step, err)
	}
	return fmt.Errorf("%s: %w", step, err)
}

// text is the mail with its headers, see RFC 5322.
func (m *Email) text(e *Envelope) ([]byte, error) {
	var b bytes.Buffer
	header := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, clean(value)) }
	header("From", m.from.String())
	to := make([]string, len(m.to))
	for i, one := range m.to {
		to[i] = one.String()
	}
	header("To", strings.Join(to, ", "))
	header("Subject", mime.QEncoding.Encode("utf-8", clean(e.title())))
	header("Date", m.Now().In(m.Zone).Format(time.RFC1123Z))
	if e.ID != "" {
		header("Message-ID", "<"+e.ID+"@plantops>")
	}
	header("Auto-Submitted", "auto-generated")
	header("MIME-Version", "1.0")
	header("Content-Type", "text/plain; charset=utf-8")
	header("Content-Transfer-Encoding", "quoted-printable")
	b.WriteString("\r\n")
	w := quotedprintable.NewWriter(&b)
	if _, err := w.Write([]byte(strings.ReplaceAll(e.body(m.Zone), "\n", "\r\n") + "\r\n")); err != nil {
		return nil, err
	}
	return b.Bytes(), w.Close()
}
