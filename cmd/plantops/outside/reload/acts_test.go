//go:build linux

package reload_test

import (
	"crypto"
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

	"github.com/plantops/plantops/certs/certstest"
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
		{"a directory as configuration", func() { u.withoutConfig(func() { require.NoError(u.T, os.Mkdir(u.config, 0o755)) }) }},
		{"certs renew", func() { u.newCertificate(func() { u.In.Run("certs", "renew") }) }},
		{"the same certificates", func() { u.certificateStays(func() {}, true) }},
		{"another certificate", func() { u.newCertificate(func() { u.issue(u.serverKey().Public()) }) }},
		{"a certificate of another key", func() { u.newCertificate(func() { u.issue(certstest.NewKey(u.T).Public()) }) }},
		{"no certificate", func() { u.newCertificate(func() { require.NoError(u.T, os.Remove(u.cert("server.crt"))) }) }},
		{"no key", func() { u.newCertificate(func() { require.NoError(u.T, os.Remove(u.cert("server.key"))) }) }},
		{"a key that all can read", func() {
			u.certificateStays(func() { require.NoError(u.T, os.Chmod(u.cert("server.key"), 0o644)) }, false)
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
	u.T.Helper()
	require.NoError(u.T, os.WriteFile(path+".new", text, mode))
	require.NoError(u.T, os.Rename(path+".new", path))
}

func (u *upheaval) writeConfig(text string) { u.replace(u.config, []byte(text), 0o600) }

// reconfigure reloads a configuration; the log must say so. The file is a good one afterwards: commands read it too.
func (u *upheaval) reconfigure(text, says string) {
	u.T.Helper()
	u.writeConfig(goodConfig) // at this level the log says everything
	u.hangUp()
	u.writeConfig(text)
	said := u.hangUp()
	assert.Contains(u.T, said, says)
	if says == refusesConfig {
		u.writeConfig(goodConfig)
	} else {
		assert.NotContains(u.T, said, refusesConfig, text)
	}
}

// quieten makes the log quiet, and an invalid configuration does not make it talk again.
func (u *upheaval) quieten() {
	u.T.Helper()
	u.reconfigure("log:\n  level: error\n", "")
	u.writeConfig("log:\n  level: debug\n  no_such_key: 1\n")
	said := u.hangUp()
	assert.Contains(u.T, said, refusesConfig)
	assert.NotContains(u.T, said, " INF ")
	u.writeConfig(goodConfig)
}

// withoutConfig takes the file away for a reload; then may put something in its place.
func (u *upheaval) withoutConfig(then func()) {
	u.T.Helper()
	require.NoError(u.T, os.Remove(u.config))
	then()
	assert.Contains(u.T, u.hangUp(), refusesConfig)
	require.NoError(u.T, os.RemoveAll(u.config))
	u.writeConfig(goodConfig)
	assert.NotContains(u.T, u.hangUp(), refusesConfig)
}

func (u *upheaval) cert(name string) string { return filepath.Join(u.In.Dir, "certs", name) }

// reloadCertificates makes the server read its certificates, in one of the two ways that there are, and reports whether it took them.
func (u *upheaval) reloadCertificates() bool {
	u.T.Helper()
	if u.random.IntN(2) == 0 {
		return !strings.Contains(u.hangUp(), "the certificates stay as they were")
	}
	_, ok := u.order("/certificates/reload", nil)
	return ok
}

// served is the certificate that a client is shown, and finds good.
func (u *upheaval) served() *x509.Certificate {
	u.T.Helper()
	conn, err := tls.Dial("tcp", u.In.TLS, u.Doors[1].TLS)
	require.NoError(u.T, err)
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

// newCertificate makes one: it is served afterwards, and it is the one in the file.
func (u *upheaval) newCertificate(make func()) {
	u.T.Helper()
	before := u.served()
	make()
	require.True(u.T, u.reloadCertificates())
	after := u.served()
	assert.False(u.T, after.Equal(before), "the old certificate is still served")
	assert.True(u.T, after.Equal(u.serverCertificate()), "another certificate is served than the one in the file")
}

// certificateStays changes the files so that the certificate that is served must go on being served, and puts them back.
func (u *upheaval) certificateStays(change func(), good bool) {
	u.T.Helper()
	before := u.served()
	kept := map[string][]byte{}
	for _, name := range []string{"ca.crt", "server.crt", "ca.key", "server.key", "ca.crl"} {
		text, err := os.ReadFile(u.cert(name))
		if name != "ca.crl" || err == nil { // there is none before the first revocation
			require.NoError(u.T, err)
			kept[name] = text
		}
	}
	change()
	assert.Equal(u.T, good, u.reloadCertificates(), "the files were taken")
	assert.True(u.T, u.served().Equal(before), "another certificate is served")
	for name, text := range kept {
		u.replace(u.cert(name), text, map[bool]os.FileMode{true: 0o600, false: 0o644}[filepath.Ext(name) == ".key"])
	}
	require.True(u.T, u.reloadCertificates())
	assert.True(u.T, u.served().Equal(before), "another certificate is served")
}

// revoke revokes a certificate that nobody uses.
func (u *upheaval) revoke() {
	u.T.Helper()
	name := fmt.Sprint("revoked-", u.random.Uint32())
	u.In.Run("certs", "issue", name, "--out", filepath.Dir(u.log))
	before := u.served()
	u.In.Run("certs", "revoke", name)
	assert.True(u.T, u.served().Equal(before), "another certificate is served")
}

func (u *upheaval) spoil(name string) {
	garbage := make([]byte, 1000)
	for i := range garbage {
		garbage[i] = byte(u.random.Uint32())
	}
	require.NoError(u.T, os.WriteFile(u.cert(name), garbage, 0o600)) // in place
}

// truncate leaves what is there while somebody else writes the file in place.
func (u *upheaval) truncate(name string) {
	info, err := os.Stat(u.cert(name))
	require.NoError(u.T, err)
	require.NoError(u.T, os.Truncate(u.cert(name), u.random.Int64N(info.Size()/2)))
}

func (u *upheaval) pemBlock(name string) []byte {
	u.T.Helper()
	text, err := os.ReadFile(u.cert(name))
	require.NoError(u.T, err)
	block, _ := pem.Decode(text)
	require.NotNil(u.T, block, name)
	return block.Bytes
}

func (u *upheaval) serverKey() crypto.Signer {
	u.T.Helper()
	key, err := x509.ParsePKCS8PrivateKey(u.pemBlock("server.key"))
	require.NoError(u.T, err)
	return key.(crypto.Signer)
}

func (u *upheaval) serverCertificate() *x509.Certificate {
	u.T.Helper()
	c, err := x509.ParseCertificate(u.pemBlock("server.crt"))
	require.NoError(u.T, err)
	return c
}

// issue writes a server certificate as good as the one that is there, of the same authority.
func (u *upheaval) issue(public crypto.PublicKey) {
	u.T.Helper()
	authority, err := tls.LoadX509KeyPair(u.cert("ca.crt"), u.cert("ca.key"))
	require.NoError(u.T, err)
	next := *u.serverCertificate()
	next.SerialNumber = new(big.Int).SetUint64(u.random.Uint64())
	der := certstest.Of(u.T, authority).Sign(&next, public)
	u.replace(u.cert("server.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// status asks for the status.
func (u *upheaval) status() (answer map[string]any, ok bool) {
	u.T.Helper()
	response, err := u.control.Get("http://plantops/status")
	require.NoError(u.T, err)
	defer response.Body.Close()
	require.NoError(u.T, json.NewDecoder(response.Body).Decode(&answer))
	return answer, response.StatusCode == 200
}
