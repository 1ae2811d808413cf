package ingest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

// PublisherOptions says how a Publisher connects. Address and Username are required.
type PublisherOptions struct {
	Address            string      // host:port
	TLS                *tls.Config // nil means plain TCP
	Username, Password string
	ClientID           string        // empty: Username
	Timeout            time.Duration // bounds each wait for the broker; default 10 s
}

// Publisher is one MQTT connection that only publishes, as a device does. It is used by one goroutine and
// does not reconnect: after an error, Close it and connect another.
type Publisher struct {
	client *paho.Client
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
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	socket, err := dialPublisher(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("connect to MQTT broker at %s: %w", o.Address, err)
	}
	ended, end := context.WithCancelCause(context.Background())
	client := paho.NewClient(paho.ClientConfig{
		Conn:               packets.NewThreadSafeConn(socket), // paho pings beside a packet that is being written
		ClientID:           o.ClientID,
		PacketTimeout:      o.Timeout,
		OnClientError:      func(err error) { end(err) },
		OnServerDisconnect: func(d *paho.Disconnect) { end(disconnectError(d)) },
	})
	answer, err := client.Connect(ctx, &paho.Connect{
		ClientID:     o.ClientID,
		KeepAlive:    keepAliveSeconds,
		CleanStart:   true,
		UsernameFlag: true,
		Username:     o.Username,
		PasswordFlag: true,
		Password:     []byte(o.Password),
	})
	if err == nil {
		return &Publisher{client, ended}, nil
	}
	socket.Close()
	if answer != nil {
		err = fmt.Errorf("broker refused the connection: %s", reason(answer.ReasonCode, ""))
	}
	return nil, fmt.Errorf("connect to MQTT broker at %s: %w", o.Address, err)
}

func dialPublisher(ctx context.Context, o PublisherOptions) (net.Conn, error) {
	if o.TLS == nil {
		return (&net.Dialer{}).DialContext(ctx, "tcp", o.Address)
	}
	return (&tls.Dialer{Config: o.TLS}).DialContext(ctx, "tcp", o.Address)
}

// Publish sends one message. With QoS 1 it returns nil when the broker has acknowledged it; with an error the
// message may have arrived all the same.
func (p *Publisher) Publish(ctx context.Context, topic string, payload []byte, qos byte) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(p.ended, func() { cancel(context.Cause(p.ended)) })
	defer stop()
	_, err := p.client.Publish(ctx, &paho.Publish{Topic: topic, Payload: payload, QoS: qos})
	if err != nil && errors.Is(err, context.Canceled) {
		err = context.Cause(ctx)
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
