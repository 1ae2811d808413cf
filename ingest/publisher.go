package ingest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// PublisherOptions says how a Publisher connects. Address and Username are required.
type PublisherOptions struct {
	Address            string      // host:port
	TLS                *tls.Config // nil means plain TCP; ServerName empty: the host of Address
	Username, Password string
	ClientID           string        // empty: Username
	Timeout            time.Duration // bounds each wait for the broker (a packet written, an answer); default 10 s
}

// Publisher is one MQTT connection that only publishes, as a device does. It is used by one goroutine and
// does not reconnect: after an error, Close it and connect another.
type Publisher struct {
	client *paho.Client
	conn   *conn
	ended  context.Context // over when the connection is; its cause says why
}

// Connect connects and logs in.
func Connect(ctx context.Context, o PublisherOptions) (*Publisher, error) {
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.ClientID == "" {
		o.ClientID = o.Username
	}
	if o.TLS != nil && o.TLS.ServerName == "" {
		o.TLS = o.TLS.Clone()
		o.TLS.ServerName, _, _ = net.SplitHostPort(o.Address) // an address that is none fails to be dialled
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	socket, err := dial(ctx, dialOptions{address: o.Address, config: o.TLS, patience: o.Timeout,
		limit: leastPacketBytes, onEnd: func() {}})
	if err != nil {
		return nil, fmt.Errorf("connect to MQTT broker at %s: %w", o.Address, err)
	}
	ended, end := context.WithCancelCause(context.Background())
	client := paho.NewClient(paho.ClientConfig{
		Conn:               socket,
		ClientID:           o.ClientID,
		PacketTimeout:      o.Timeout,
		AuthHandler:        noAuth{},
		OnClientError:      func(err error) { end(err) },
		OnServerDisconnect: func(d *paho.Disconnect) { end(disconnectError(d)) },
	})
	receiveMaximum := uint16(1) // nothing is subscribed; paho makes room for so many packets, without it for 65535: 512 kB
	answer, err := client.Connect(ctx, &paho.Connect{
		Properties:   &paho.ConnectProperties{ReceiveMaximum: &receiveMaximum, RequestProblemInfo: true},
		ClientID:     o.ClientID,
		KeepAlive:    keepAliveSeconds,
		CleanStart:   true,
		UsernameFlag: true,
		Username:     o.Username,
		PasswordFlag: true,
		Password:     []byte(o.Password),
	})
	if err == nil {
		return &Publisher{client, socket, ended}, nil
	}
	socket.Close()
	if answer != nil {
		err = fmt.Errorf("broker refused the connection: %s", reason(answer.ReasonCode, ""))
	}
	return nil, fmt.Errorf("connect to MQTT broker at %s: %w", o.Address, err)
}

// Publish sends one message. With QoS 1 it returns nil when the broker has acknowledged it; with an error the
// message may have arrived all the same. With QoS 0 it returns nil when the system has taken it.
func (p *Publisher) Publish(ctx context.Context, topic string, payload []byte, qos byte) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(p.ended, func() { cancel(context.Cause(p.ended)) })
	defer stop()
	_, err := p.client.Publish(ctx, &paho.Publish{Topic: topic, Payload: payload, QoS: qos})
	if err != nil && errors.Is(err, context.Canceled) {
		err = context.Cause(ctx)
	}
	if cause := p.conn.cause.Load(); cause != nil {
		err = *cause // the broker took nothing more
	}
	if err != nil {
		return fmt.Errorf("publish to %s: %w", topic, err)
	}
	return nil
}

// Close says goodbye and closes the connection.
func (p *Publisher) Close() error {
	err := p.client.Disconnect(&paho.Disconnect{})
	<-p.client.Done()
	if p.ended.Err() != nil {
		return nil // it was over already
	}
	return err
}
