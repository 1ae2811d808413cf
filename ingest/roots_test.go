package ingest

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/assert"
)

// An authority may be followed by another while the subscriber runs: each connection asks anew, and nothing else changes.
func TestEachConnectionAsksWhomToTrust(t *testing.T) {
	first, later := x509.NewCertPool(), x509.NewCertPool()
	later.AddCert(&x509.Certificate{Raw: []byte("another")})
	trusted := first
	o := &Options{TLS: &tls.Config{ServerName: "pi.farm", RootCAs: first}}
	assert.Same(t, o.TLS, o.tls())
	o.Roots = func() *x509.CertPool { return trusted }
	assert.True(t, o.tls().RootCAs.Equal(first))
	trusted = later
	config := o.tls()
	assert.True(t, config.RootCAs.Equal(later))
	assert.Equal(t, "pi.farm", config.ServerName)
	assert.False(t, config.InsecureSkipVerify)
	assert.True(t, o.TLS.RootCAs.Equal(first), "the options stay as they were given")
	assert.Nil(t, (&Options{}).tls())
}
