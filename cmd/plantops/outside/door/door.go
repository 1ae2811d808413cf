//go:build linux

package door

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
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
	dialer := &net.Dialer{Timeout: setting.Patience}
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	conn, err := dialer.Dial("tcp", d.Address)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(setting.Patience)); err != nil {
		return nil, err
	}
	a := &Intruder{t: t, Conn: conn}
	if d.Kind == "tls" {
		a.Conn = tls.Client(conn, d.TLS)
	}
	a.In = bufio.NewReader(a.Conn)
	if d.Kind == "websocket" {
		answer, err := a.Upgrade("")
		if err != nil {
			return nil, err
		}
		if answer != 101 {
			return nil, fmt.Errorf("the websocket is refused with status %d", answer)
		}
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
	dialer := &net.Dialer{Timeout: setting.Patience}
	if source != nil {
		dialer.LocalAddr = &net.TCPAddr{IP: source}
	}
	socket, err := dialer.DialContext(ctx, "tcp", d.Address)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { socket.Close() })
	switch d.Kind {
	case "tls":
		return tls.Client(socket, d.TLS), nil
	case "websocket":
		framed, err := overWebsocket(socket)
		if err != nil {
			socket.Close()
		}
		return framed, err
	}
	return socket, nil
}
