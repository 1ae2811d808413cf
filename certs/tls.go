package certs

import (
	"crypto/tls"
	"fmt"
)

// use makes g what new connections get, and what is known to be on disk.
func (a *Authority) use(g *generation) {
	a.rejected = ""
	if a.current.Load() == g {
		return
	}
	g.ids = newIdentities(g)
	g.open = &tls.Config{
		GetCertificate: a.certificateFor,
		MinVersion:     tls.VersionTLS12,
		Time:           a.judge,
	}
	g.mutual = g.open.Clone()
	g.mutual.ClientAuth = tls.RequireAndVerifyClientCert
	g.mutual.ClientCAs = g.rootPool()
	g.mutual.VerifyConnection = a.verifyConnection
	a.current.Store(g)
	if len(g.rsa.chain) > 0 || g.caKey == nil || a.readOnly {
		a.rsa.over() // who waits looks at what is current
	}
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
		Time:       a.judge,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			g := a.current.Load()
			if requireClient {
				return g.mutual, nil
			}
			return g.open, nil
		},
	}
}

// WebTLS is the configuration for a listener that asks for no certificate of clients, and negotiates the protocol (NextProtos), which
// http.Server adds. Each handshake takes the certificates in use at that moment.
func (a *Authority) WebTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, Time: a.judge, GetCertificate: a.certificateFor}
}

// LoadClient reads the certificate that a client shows, with those in between, and its key, with the checks and the words of Open.
func LoadClient(certPath, keyPath string) (tls.Certificate, error) {
	chain, err := readServerCertificates(certPath)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := readKey(keyPath)
	if err != nil {
		return tls.Certificate{}, err
	}
	if !belongs(key, chain[0]) {
		return tls.Certificate{}, fmt.Errorf("key %s does not belong to %s", keyPath, certPath)
	}
	return *tlsCertificate(chain, key), nil
}
