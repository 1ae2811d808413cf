package bridge

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Options say which brokers to connect and what to carry. All but FirstWait, Log and Now must be set.
type Options struct {
	Name          string
	Local, Remote Broker
	Routes        []Route // the first that fits a message counts
	// Box names the local broker in what is carried, so that what comes back is known. It must differ from that of any other
	// broker, and be the one that the local broker tells in its CONNACK.
	Box string
	// SessionExpiry is how long either broker keeps the session, and what waits in it, while the bridge is away.
	SessionExpiry time.Duration
	KeepAlive     time.Duration
	// Patience bounds each wait for a broker: a packet written, an answer to CONNECT or SUBSCRIBE.
	Patience  time.Duration
	FirstWait time.Duration    // before the first new attempt; 0: a second
	Log       *slog.Logger     // nil: no log
	Now       func() time.Time // dates what is told to people; nil: time.Now
}

// Broker is one of the two brokers.
type Broker struct {
	Name    string // for people: "remote broker"
	Address string // host:port; the name is looked up for each connection
	// TLS is asked for each connection; nil means plain TCP. ServerName, if empty, becomes the host of Address.
	TLS                          func() (*tls.Config, error)
	Username, Password, ClientID string
	// MaxPacketBytes is announced: the largest packet that it may send.
	MaxPacketBytes int
	// MaxLevels is how many levels a topic may have that is sent there; 0: any number.
	MaxLevels int
}

// Direction is where messages go; a route may have both.
type Direction uint8

const (
	Out Direction = 1 << iota // from the local broker to the remote one
	In
)

// Route carries the messages of one filter. The topic at the local broker begins with LocalPrefix, at the remote one with
// RemotePrefix; what follows is the same, and fits Filter.
type Route struct {
	Filter                    string
	Direction                 Direction
	QoS                       byte // the most
	LocalPrefix, RemotePrefix string
}

func (o *Options) check() error {
	switch {
	case o.Name == "" || o.Box == "":
		return errors.New("bridge: Options.Name and Box must be set")
	case len(o.Routes) == 0:
		return fmt.Errorf("bridge %s: Options.Routes is empty", o.Name)
	case o.Patience <= 0 || o.KeepAlive <= 0 || o.SessionExpiry <= 0:
		return fmt.Errorf("bridge %s: Options.Patience, KeepAlive and SessionExpiry must be more than 0", o.Name)
	}
	for _, b := range []*Broker{&o.Local, &o.Remote} {
		if b.Address == "" || b.ClientID == "" || b.Name == "" || b.MaxPacketBytes <= 0 {
			return fmt.Errorf("bridge %s: Name, Address, ClientID and MaxPacketBytes of both brokers must be set", o.Name)
		}
	}
	return nil
}

// filters are what must be subscribed to for one direction, at the broker that messages come from, with the most that is
// asked of each.
func (o *Options) filters(d Direction) []filter {
	var all []filter
	for _, r := range o.Routes {
		if r.Direction&d == 0 {
			continue
		}
		f := filter{r.LocalPrefix + r.Filter, r.QoS}
		if d == In {
			f.text = r.RemotePrefix + r.Filter
		}
		twice := false
		for i := range all {
			if all[i].text == f.text {
				all[i].qos = max(all[i].qos, f.qos)
				twice = true
			}
		}
		if !twice {
			all = append(all, f)
		}
	}
	return all
}

type filter struct {
	text string
	qos  byte
}
