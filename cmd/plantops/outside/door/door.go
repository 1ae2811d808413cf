//go:build linux

package door

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

// Door is one listener of a broker under attack.
type Door struct {
	Kind, Address string // kind is tcp, tls or websocket
	TLS           *tls.Config
}

// Open makes a connection from an address of the loopback ("" is any), with TLS and websocket but without MQTT.
func (d Door) Open(t *testing.T, from string) (*Intruder, error) {
	a, err := d.reach(context.Background(), net.ParseIP(from))
	if err != nil {
		return nil, err
	}
	a.t = t
	t.Cleanup(func() { a.socket.Close() })
	return a, nil
}

// reach makes a connection as the door wants it, with a deadline for all that follows. It is closed when ctx ends. from may
// be nil.
func (d Door) reach(ctx context.Context, from net.IP) (*Intruder, error) {
	dialer := &net.Dialer{Timeout: setting.Patience}
	if from != nil {
		dialer.LocalAddr = &net.TCPAddr{IP: from}
	}
	socket, err := dialer.DialContext(ctx, "tcp", d.Address)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { socket.Close() })
	a := &Intruder{Conn: socket, socket: socket}
	if d.Kind == "tls" {
		a.Conn = tls.Client(socket, d.TLS)
	}
	a.In = bufio.NewReader(a.Conn)
	err = socket.SetDeadline(time.Now().Add(setting.Patience))
	if err == nil && d.Kind == "websocket" {
		err = a.enterWebsocket()
	}
	if err != nil {
		socket.Close()
		return nil, err
	}
	return a, nil
}

// Enter logs in and returns the reason code of the CONNACK.
func (d Door) Enter(t *testing.T, l rawmqtt.Login) (*Intruder, byte, error) {
	return d.EnterFrom(t, "", l)
}

// EnterFrom does it from an address of the loopback.
func (d Door) EnterFrom(t *testing.T, from string, l rawmqtt.Login) (*Intruder, byte, error) {
	a, err := d.Open(t, from)
	if err != nil {
		return nil, 0, err
	}
	a.Send(l.Encode())
	answer, err := a.Await(rawmqtt.Connack)
	if err != nil {
		return nil, 0, err
	}
	return a, answer[1], nil
}

// Dial makes a stream of MQTT to a door, for a client of its own: over TLS or a websocket where the door wants it. It is
// closed when ctx ends. source may be nil.
func (d Door) Dial(ctx context.Context, source net.IP) (net.Conn, error) {
	a, err := d.reach(ctx, source)
	if err != nil {
		return nil, err
	}
	if err := a.socket.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	if a.websocket {
		return framed{a}, nil
	}
	return a.Conn, nil
}
