package certs

import "crypto/tls"

// use makes g what new connections get, and what is known to be on disk.
func (a *Authority) use(g *generation) {
	a.rejected = ""
	if a.current.Load() == g {
		return
	}
	raw := make([][]byte, len(g.chain))
	for i, c := range g.chain {
		raw[i] = c.Raw
	}
	g.open = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: raw, PrivateKey: g.serverKey, Leaf: g.server()}},
		MinVersion:   tls.VersionTLS12,
		Time:         a.now,
	}
	g.mutual = g.open.Clone()
	g.mutual.ClientAuth = tls.RequireAndVerifyClientCert
	g.mutual.ClientCAs = g.rootPool()
	g.mutual.VerifyConnection = a.verifyConnection
	a.current.Store(g)
}

// ServerTLS is the configuration for listeners, TLS 1.2 and later. Each handshake takes the certificates
// in use at that moment, so a renewal or reload needs no new listener and leaves live connections alone.
// With requireClient a client must show a certificate of the authority in use that is not revoked; the error of a
// handshake with a revoked one is a *RevokedError.
//
// Session tickets stay good across renewals: crypto/tls takes their keys from the configuration returned
// here as long as the one from GetConfigForClient sets none. A resumed client is checked against the
// authority in use again.
func (a *Authority) ServerTLS(requireClient bool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		Time:       a.now,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			g := a.current.Load()
			if requireClient {
				return g.mutual, nil
			}
			return g.open, nil
		},
	}
}
