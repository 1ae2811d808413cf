//go:build linux

package main_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// act is one thing that can happen to a server that runs.
type act struct {
	name string
	do   func()
}

const (
	goodConfig    = "log:\n  level: info\n"
	refusesConfig = "the configuration stays as it was"
)

func (u *upheaval) acts() []act {
	config := func(name, text, says string) act { return act{name, func() { u.reconfigure(text, says) }} }
	acts := []act{
		config("the same configuration", goodConfig, "configuration reloaded"),
		config("another log level", "log:\n  level: debug\ningest:\n  offline_after: 10m\n", "setting changed"),
		config("settings that need a restart", "limits:\n  max_topic_levels: 4\n  max_packet_bytes: 1024\n", "needs a restart"),
		{"a quiet log", u.quieten},
		config("an empty configuration", "", ""),
		config("an unknown key", "no_such_key: 1\n", refusesConfig),
		config("broken YAML", "log: [\n", refusesConfig),
		config("a value out of range", "ingest:\n  stall_timeout: 1ns\n", refusesConfig),
		{"no configuration", func() { u.withoutConfig(func() {}) }},
		{"a directory as configuration", func() { u.withoutConfig(func() { require.NoError(u.t, os.Mkdir(u.config, 0o755)) }) }},
		{"certs renew", func() { u.newCertificate(func() { u.in.run("certs", "renew") }) }},
		{"the same certificates", func() { u.certificateStays(func() {}, true) }},
		{"another certificate", func() { u.newCertificate(func() { u.issue(u.serverKey().Public()) }) }},
		{"a certificate of another key", func() { u.newCertificate(func() { u.issue(newTestKey(u).Public()) }) }},
		{"no certificate", func() { u.newCertificate(func() { require.NoError(u.t, os.Remove(u.cert("server.crt"))) }) }},
		{"no key", func() { u.newCertificate(func() { require.NoError(u.t, os.Remove(u.cert("server.key"))) }) }},
		{"a key that all can read", func() {
			u.certificateStays(func() { require.NoError(u.t, os.Chmod(u.cert("server.key"), 0o644)) }, false)
		}},
	}
	acts = append(acts, act{"certs revoke", u.revoke}) // so that there is a list to spoil
	for _, name := range []string{"server.crt", "server.key", "ca.crt", "ca.key", "ca.crl"} {
		acts = append(acts, act{"garbage in " + name, func() { u.certificateStays(func() { u.spoil(name) }, false) }},
			act{"the start of " + name, func() { u.certificateStays(func() { u.truncate(name) }, false) }})
	}
	for range 4 { // accounts are as often as the other two together
		for _, verb := range []string{"add", "add", "rotate", "remove"} {
			acts = append(acts, act{verb + " account", func() { u.changeGuest(verb) }})
		}
	}
	return acts
}

// replace writes a file as editors do.
func (u *upheaval) replace(path string, text []byte, mode os.FileMode) {
	u.t.Helper()
	require.NoError(u.t, os.WriteFile(path+".new", text, mode))
	require.NoError(u.t, os.Rename(path+".new", path))
}

func (u *upheaval) writeConfig(text string) { u.replace(u.config, []byte(text), 0o600) }

// reconfigure reloads a configuration; the log must say so. The file is a good one afterwards: commands read it too.
func (u *upheaval) reconfigure(text, says string) {
	u.t.Helper()
	u.writeConfig(goodConfig) // at this level the log says everything
	u.hangUp()
	u.writeConfig(text)
	said := u.hangUp()
	assert.Contains(u.t, said, says)
	if says == refusesConfig {
		u.writeConfig(goodConfig)
	} else {
		assert.NotContains(u.t, said, refusesConfig, text)
	}
}

// quieten makes the log quiet, and an invalid configuration does not make it talk again.
func (u *upheaval) quieten() {
	u.t.Helper()
	u.reconfigure("log:\n  level: error\n", "")
	u.writeConfig("log:\n  level: debug\n  no_such_key: 1\n")
	said := u.hangUp()
	assert.Contains(u.t, said, refusesConfig)
	assert.NotContains(u.t, said, " INF ")
	u.writeConfig(goodConfig)
}

// withoutConfig takes the file away for a reload; then may put something in its place.
func (u *upheaval) withoutConfig(then func()) {
	u.t.Helper()
	require.NoError(u.t, os.Remove(u.config))
	then()
	assert.Contains(u.t, u.hangUp(), refusesConfig)
	require.NoError(u.t, os.RemoveAll(u.config))
	u.writeConfig(goodConfig)
	assert.NotContains(u.t, u.hangUp(), refusesConfig)
}

func (u *upheaval) cert(name string) string { return filepath.Join(u.in.dir, "certs", name) }

// reloadCertificates makes the server read its certificates, in one of the two ways that there are, and reports whether it took them.
func (u *upheaval) reloadCertificates() bool {
	u.t.Helper()
	if u.random.IntN(2) == 0 {
		return !strings.Contains(u.hangUp(), "the certificates stay as they were")
	}
	_, ok := u.order("/certificates/reload", nil)
	return ok
}

// served is the certificate that a client is shown, and finds good.
func (u *upheaval) served() *x509.Certificate {
	u.t.Helper()
	conn, err := tls.Dial("tcp", u.in.tls, u.doors[1].tls)
	require.NoError(u.t, err)
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

// newCertificate makes one: it is served afterwards, and it is the one in the file.
func (u *upheaval) newCertificate(make func()) {
	u.t.Helper()
	before := u.served()
	make()
	require.True(u.t, u.reloadCertificates())
	after := u.served()
	assert.False(u.t, after.Equal(before), "the old certificate is still served")
	assert.True(u.t, after.Equal(u.serverCertificate()), "another certificate is served than the one in the file")
}

// certificateStays changes the files so that the certificate that is served must go on being served, and puts them back.
func (u *upheaval) certificateStays(change func(), good bool) {
	u.t.Helper()
	before := u.served()
	kept := map[string][]byte{}
	for _, name := range []string{"ca.crt", "server.crt", "ca.key", "server.key", "ca.crl"} {
		text, err := os.ReadFile(u.cert(name))
		if name != "ca.crl" || err == nil { // there is none before the first revocation
			require.NoError(u.t, err)
			kept[name] = text
		}
	}
	change()
	assert.Equal(u.t, good, u.reloadCertificates(), "the files were taken")
	assert.True(u.t, u.served().Equal(before), "another certificate is served")
	for name, text := range kept {
		u.replace(u.cert(name), text, map[bool]os.FileMode{true: 0o600, false: 0o644}[filepath.Ext(name) == ".key"])
	}
	require.True(u.t, u.reloadCertificates())
	assert.True(u.t, u.served().Equal(before), "another certificate is served")
}

// revoke revokes a certificate that nobody uses.
func (u *upheaval) revoke() {
	u.t.Helper()
	name := fmt.Sprint("revoked-", u.random.Uint32())
	u.in.run("certs", "issue", name, "--out", filepath.Dir(u.log))
	before := u.served()
	u.in.run("certs", "revoke", name)
	assert.True(u.t, u.served().Equal(before), "another certificate is served")
}

func (u *upheaval) spoil(name string) {
	garbage := make([]byte, 1000)
	for i := range garbage {
		garbage[i] = byte(u.random.Uint32())
	}
	require.NoError(u.t, os.WriteFile(u.cert(name), garbage, 0o600)) // in place
}

// truncate leaves what is there while somebody else writes the file in place.
func (u *upheaval) truncate(name string) {
	info, err := os.Stat(u.cert(name))
	require.NoError(u.t, err)
	require.NoError(u.t, os.Truncate(u.cert(name), u.random.Int64N(info.Size()/2)))
}

func (u *upheaval) pemBlock(name string) []byte {
	u.t.Helper()
	text, err := os.ReadFile(u.cert(name))
	require.NoError(u.t, err)
	block, _ := pem.Decode(text)
	require.NotNil(u.t, block, name)
	return block.Bytes
}

func (u *upheaval) key(name string) crypto.Signer {
	u.t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(u.pemBlock(name))
	require.NoError(u.t, err)
	return key.(crypto.Signer)
}

func (u *upheaval) serverKey() crypto.Signer { return u.key("server.key") }

func (u *upheaval) serverCertificate() *x509.Certificate {
	u.t.Helper()
	c, err := x509.ParseCertificate(u.pemBlock("server.crt"))
	require.NoError(u.t, err)
	return c
}

func newTestKey(u *upheaval) crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(u.t, err)
	return key
}

// issue writes a server certificate as good as the one that is there, of the same authority.
func (u *upheaval) issue(public crypto.PublicKey) {
	u.t.Helper()
	ca, err := x509.ParseCertificate(u.pemBlock("ca.crt"))
	require.NoError(u.t, err)
	next := *u.serverCertificate()
	next.SerialNumber = new(big.Int).SetUint64(u.random.Uint64())
	der, err := x509.CreateCertificate(rand.Reader, &next, ca, public, u.key("ca.key"))
	require.NoError(u.t, err)
	var text bytes.Buffer
	require.NoError(u.t, pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der}))
	u.replace(u.cert("server.crt"), text.Bytes(), 0o644)
}

// status asks for the status.
func (u *upheaval) status() (answer map[string]any, ok bool) {
	u.t.Helper()
	response, err := u.control.Get("http://plantops/status")
	require.NoError(u.t, err)
	defer response.Body.Close()
	require.NoError(u.t, json.NewDecoder(response.Body).Decode(&answer))
	return answer, response.StatusCode == 200
}
