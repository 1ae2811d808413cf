package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/broker/topic"
	"github.com/plantops/plantops/cmd/plantops/mqttcli"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
)

const (
	// mqttPatience is how long a broker has for a login, or for an acknowledgement.
	mqttPatience = 30 * time.Second
	// mqttAgain is how long sub waits before it connects again.
	mqttAgain = time.Second
)

// mqttFlags say which broker, and as whom: those of mosquitto_pub and mosquitto_sub.
type mqttFlags struct {
	host, user, clientID, version string
	password, passwordFile        string
	port, keepAlive               int
	tls, insecure                 bool
	caFile, cert, key             string
	qos                           int
	keep                          bool
	expiry                        uint32
	will                          mqttcli.Message
	willPayload                   string
	willQoS                       int
}

func (f *mqttFlags) add(cmd *cobra.Command, qos int) {
	flags := cmd.Flags()
	flags.Bool("help", false, "show this") // without -h, which is the host for everybody who knows mosquitto_pub
	flags.StringVarP(&f.host, "host", "h", "", "broker (default: the server of this data directory, with TLS and an account of its own)")
	flags.IntVarP(&f.port, "port", "p", 0, "port (default 1883, with TLS 8883)")
	flags.StringVarP(&f.user, "username", "u", "", "user name")
	flags.StringVarP(&f.password, "pw", "P", "", "password; others on this machine can read it in the list of processes: better use --password-file")
	flags.StringVar(&f.passwordFile, "password-file", "", "read the password from `FILE`")
	flags.StringVarP(&f.clientID, "id", "i", "", "client id (default: one at random)")
	flags.StringVarP(&f.version, "protocol-version", "V", "", "31, 311 or 5 (default 5, or 311 where the broker does not speak it)")
	flags.IntVarP(&f.keepAlive, "keepalive", "k", 60, "seconds between signs of life; 0: none")
	flags.BoolVar(&f.tls, "tls", false, "use TLS, and trust the CAs of this system")
	flags.StringVar(&f.caFile, "cafile", "", "use TLS, and trust the CA certificates in this file")
	flags.StringVar(&f.cert, "cert", "", "certificate of the client, for TLS")
	flags.StringVar(&f.key, "key", "", "file with the key of that certificate")
	flags.BoolVar(&f.insecure, "insecure", false, "use TLS, and believe every certificate: anybody can be the broker")
	flags.IntVarP(&f.qos, "qos", "q", qos, "quality of service: 0, 1 or 2")
	flags.BoolVar(&f.keep, "disable-clean-session", false, "take up the session of this client id, and leave it behind; needs --id")
	flags.Uint32VarP(&f.expiry, "session-expiry-interval", "x", 0, "seconds that the session is kept, in MQTT 5 (default with --disable-clean-session: as long as the broker keeps it)")
	flags.StringVar(&f.will.Topic, "will-topic", "", "topic of the will: what the broker publishes when this client is lost")
	flags.StringVar(&f.willPayload, "will-payload", "", "payload of the will")
	flags.IntVar(&f.willQoS, "will-qos", 0, "quality of service of the will")
	flags.BoolVar(&f.will.Retain, "will-retain", false, "retain the will")
}

// versions are the words for the versions of MQTT.
var versions = map[string]byte{"": 5, "31": 3, "mqttv31": 3, "311": 4, "mqttv311": 4, "5": 5, "mqttv5": 5}

func (f *mqttFlags) check() error {
	switch {
	case f.qos < 0 || f.qos > 2:
		return fmt.Errorf("--qos %d: use 0, 1 or 2", f.qos)
	case f.willQoS < 0 || f.willQoS > 2:
		return fmt.Errorf("--will-qos %d: use 0, 1 or 2", f.willQoS)
	case versions[f.version] == 0:
		return fmt.Errorf("--protocol-version %s: use 31, 311 or 5", f.version)
	case f.keepAlive < 0 || f.keepAlive > 65535:
		return fmt.Errorf("--keepalive %d: use 0 to 65535", f.keepAlive)
	case f.port < 0 || f.port > 65535:
		return fmt.Errorf("--port %d: use 1 to 65535", f.port)
	case f.password != "" && f.passwordFile != "":
		return errors.New("use --pw or --password-file, not both")
	case (f.password != "" || f.passwordFile != "") && f.user == "":
		return errors.New("a password needs --username")
	case f.keep && f.clientID == "":
		return errors.New("--disable-clean-session needs --id, by which the session is known")
	case f.expiry > 0 && !f.keep:
		return errors.New("--session-expiry-interval needs --disable-clean-session")
	case (f.cert == "") != (f.key == ""):
		return errors.New("--cert and --key go together")
	case f.will.Topic == "" && (f.willPayload != "" || f.will.Retain || f.willQoS > 0):
		return errors.New("a will needs --will-topic")
	}
	return nil
}

// usesTLS says so for a broker that was named.
func (f *mqttFlags) usesTLS() bool {
	return f.tls || f.insecure || f.caFile != "" || f.cert != "" || f.port == 8883
}

// local says that the server of this data directory is meant.
func (f *mqttFlags) local() bool { return f.host == "" && f.port == 0 && !f.usesTLS() }

// dial connects. It is called for each connection: what lets us in at our own server does so once.
func (f *mqttFlags) dial(ctx context.Context, a *app) (*mqttcli.Conn, error) {
	o := mqttcli.Options{Version: versions[f.version], Username: f.user, Password: f.password, ClientID: f.clientID, Keep: f.keep,
		KeepAlive: time.Duration(f.keepAlive) * time.Second}
	if f.passwordFile != "" {
		var err error
		if o.Password, err = passwordFromFile(f.passwordFile); err != nil {
			return nil, err
		}
	}
	if f.keep {
		if o.Expiry = f.expiry; o.Expiry == 0 {
			o.Expiry = 0xFFFFFFFF
		}
	}
	if o.ClientID == "" {
		o.ClientID = "plantops-" + strings.ToLower(rand.Text()[:8]) // many a broker takes no empty one
	}
	if f.will.Topic != "" {
		will := f.will
		will.Payload, will.QoS = []byte(f.willPayload), byte(f.willQoS)
		o.Will = &will
	}
	ctx, cancel := context.WithTimeout(ctx, mqttPatience)
	defer cancel()
	var err error
	if f.local() {
		err = a.localBroker(ctx, &o)
	} else {
		err = f.namedBroker(&o)
	}
	if err != nil {
		return nil, err
	}
	conn, err := mqttcli.Dial(ctx, o)
	if f.version == "" && errors.Is(err, mqttcli.ErrVersion) {
		o.Version = 4
		conn, err = mqttcli.Dial(ctx, o)
	}
	return conn, mqttError(err)
}

// namedBroker fills in the broker that the flags name.
func (f *mqttFlags) namedBroker(o *mqttcli.Options) error {
	host, port := cmp.Or(f.host, "localhost"), f.port
	if f.usesTLS() {
		o.TLS = &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, InsecureSkipVerify: f.insecure}
		if f.caFile != "" {
			text, err := os.ReadFile(f.caFile)
			if err != nil {
				return fmt.Errorf("read --cafile: %w", err)
			}
			o.TLS.RootCAs = x509.NewCertPool()
			if !o.TLS.RootCAs.AppendCertsFromPEM(text) {
				return fmt.Errorf("--cafile %s: there is no certificate in PEM form in it", f.caFile)
			}
		}
		if f.cert != "" {
			pair, err := tls.LoadX509KeyPair(f.cert, f.key)
			if err != nil {
				return fmt.Errorf("read --cert and --key: %w", err)
			}
			o.TLS.Certificates = []tls.Certificate{pair}
		}
		port = cmp.Or(port, 8883)
	}
	o.Address = hostPort(host, cmp.Or(port, 1883))
	return nil
}

// localBroker fills in the server of this data directory or, where it has no broker of its own, the one that it uses.
func (a *app) localBroker(ctx context.Context, o *mqttcli.Options) error {
	loaded, err := a.load()
	if err != nil {
		return err
	}
	cfg := loaded.Config
	if !cfg.Embedded() {
		return a.otherBroker(loaded, o)
	}
	server, err := runningServer(ctx, cfg)
	if err != nil {
		return control.WithHint(err, "-h HOST names another broker")
	}
	reach, err := server.Contact(ctx)
	if err != nil {
		return err
	}
	if o.Username == "" {
		pass, err := server.Pass(ctx)
		if err != nil {
			return err
		}
		o.Username, o.Password = pass.Username, pass.Password
	}
	address, useTLS, err := simulatedListener(reach, "")
	if err != nil {
		return err
	}
	o.Address = address
	if useTLS {
		o.TLS, err = a.simulatedTLS(cfg, reach, o.Username)
	}
	return err
}

// otherBroker is that of mqtt.host, as the subscriber reaches it.
func (a *app) otherBroker(loaded config.Loaded, o *mqttcli.Options) error {
	m := loaded.Config.MQTT
	o.Address = hostPort(m.Host, m.Port)
	if o.Username == "" {
		o.Username, o.Password = m.BackendUsername, m.BackendPassword.Reveal()
	}
	if !m.UseTLS {
		return nil
	}
	o.Address = hostPort(m.Host, m.TLSPort)
	roots, err := trustedRoots(loaded, a.now())
	if err != nil {
		return err
	}
	o.TLS = &tls.Config{RootCAs: roots, ServerName: m.Host, MinVersion: tls.VersionTLS12}
	if m.ClientCert != "" {
		pair, err := clientCertificate(loaded)
		if err != nil {
			return err
		}
		o.TLS.Certificates = []tls.Certificate{pair}
	}
	return nil
}

// mqttError gives an error of a connection its exit code and remedy.
func mqttError(err error) error {
	var verify *tls.CertificateVerificationError
	var network net.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, mqttcli.ErrUnauthorized):
		return control.KindOf(control.ErrUnauthorized, control.WithHint(err, "-u USER and --password-file FILE name an account that may"))
	case errors.As(err, &verify):
		return control.WithHint(err, "--cafile FILE names the CA that signed the broker's certificate")
	case errors.Is(err, mqttcli.ErrUnavailable), errors.As(err, &network), errors.Is(err, context.DeadlineExceeded):
		return control.KindOf(control.ErrUnreachable, control.WithHint(err, "check host and port (-h, -p), TLS (--tls, --cafile), and that the broker runs"))
	}
	return err
}

type pubFlags struct {
	mqttFlags
	topic, message, file string
	lines, stdin, null   bool
	retain               bool
	repeat               int
	delay                time.Duration
}

func newPub(a *app) *cobra.Command {
	var f pubFlags
	cmd := &cobra.Command{
		Use:   "pub -t TOPIC {-m MESSAGE|-f FILE|-l|-s|-n}",
		Short: "Publish to the running server, or to any MQTT broker",
		Long: `Publish messages, with the flags of mosquitto_pub. Without -h it is the server of this data directory: with TLS where it
has that, and with an account that may do everything. With QoS 1, the default, and 2 it fails unless the broker acknowledges.`,
		Example: `  plantops pub -t devices/bed-1/commands/pump -m on
  plantops pub -t home/door -n -r                      remove a retained message
  sensors | plantops pub -h mqtt.example -u me -P secret -t a/b -l`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(cmd.Flags().Changed("message")); err != nil {
				return usageError(cmd, err)
			}
			return a.pub(cmd.Context(), &f)
		},
	}
	f.add(cmd, 1)
	flags := cmd.Flags()
	flags.StringVarP(&f.topic, "topic", "t", "", "topic")
	flags.StringVarP(&f.message, "message", "m", "", "the message")
	flags.StringVarP(&f.file, "file", "f", "", "a file that is the message")
	flags.BoolVarP(&f.lines, "stdin-line", "l", false, "each line of standard input is a message")
	flags.BoolVarP(&f.stdin, "stdin-file", "s", false, "standard input as a whole is the message")
	flags.BoolVarP(&f.null, "null-message", "n", false, "an empty message")
	flags.BoolVarP(&f.retain, "retain", "r", false, "retain it: the broker gives it to whoever subscribes later")
	flags.IntVar(&f.repeat, "repeat", 1, "publish the message so many times")
	flags.DurationVar(&f.delay, "repeat-delay", 0, "time between two of them")
	return cmd
}

func (f *pubFlags) check(message bool) error {
	given := 0
	for _, is := range []bool{message, f.file != "", f.lines, f.stdin, f.null} {
		if is {
			given++
		}
	}
	switch {
	case f.topic == "" || topic.Check(f.topic, topic.Levels(f.topic)) == topic.ErrInvalid:
		return fmt.Errorf("--topic %q: use a topic such as home/door, without + and #", f.topic)
	case given != 1:
		return errors.New("what is to be published? give one of --message, --file, --stdin-line, --stdin-file, --null-message")
	case f.repeat < 1 || f.repeat > 1 && f.lines:
		return fmt.Errorf("--repeat %d: use a number from 1, and not with --stdin-line", f.repeat)
	case f.delay < 0:
		return fmt.Errorf("--repeat-delay %s: use a positive duration", f.delay)
	}
	return f.mqttFlags.check()
}

// pub publishes what the flags say. Nothing is read or sent when the broker does not let us in.
func (a *app) pub(ctx context.Context, f *pubFlags) error {
	payload := []byte(f.message)
	var err error
	switch {
	case f.file != "":
		if payload, err = os.ReadFile(f.file); err != nil {
			return fmt.Errorf("read the message: %w", err)
		}
	case (f.stdin || f.lines) && a.stdin == nil:
		return errors.New("there is no standard input")
	}
	conn, err := f.dial(ctx, a)
	if err != nil {
		return err
	}
	p := mqttcli.Pipeline{Conn: conn, Patience: mqttPatience}
	message := mqttcli.Message{Topic: f.topic, QoS: byte(f.qos), Retain: f.retain}
	if f.stdin {
		if payload, err = io.ReadAll(a.stdin); err != nil {
			err = fmt.Errorf("read the message: %w", err)
		}
	}
	if f.lines {
		err = publishLines(ctx, &p, message, a.stdin)
	}
	message.Payload = payload
	for n := 0; n < f.repeat && err == nil && !f.lines; n++ {
		if n > 0 && !pause(ctx, f.delay) {
			err = ctx.Err()
			break
		}
		err = p.Publish(ctx, message)
	}
	err = errors.Join(err, p.Finish(ctx))
	conn.Close()
	return mqttError(err)
}

// publishLines publishes each line as it comes.
func publishLines(ctx context.Context, p *mqttcli.Pipeline, m mqttcli.Message, from io.Reader) error {
	read := make(chan []byte)
	failed := make(chan error, 1)
	go func() { // ends with the process: a read from a terminal cannot be broken off
		in := bufio.NewReader(from)
		for {
			line, err := in.ReadBytes('\n')
			if len(line) > 0 {
				select {
				case read <- bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")):
				case <-ctx.Done():
				}
			}
			if err != nil {
				failed <- err
				return
			}
		}
	}()
	for {
		select {
		case m.Payload = <-read:
			if err := p.Publish(ctx, m); err != nil {
				return err
			}
		case err := <-failed:
			if err == io.EOF {
				return nil
			}
			return fmt.Errorf("read the messages: %w", err)
		case <-p.Conn.Ended():
			return p.Conn.Err()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
