package certs

import (
	"context"
	"net"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// openssl runs the command or skips the test where there is none; crypto/x509 proves the same elsewhere.
func openssl(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "openssl", args...).CombinedOutput()
	require.NoError(t, err, "openssl %v\n%s", args, out)
	return string(out)
}

func TestOpenSSLAcceptsTheChainStrictly(t *testing.T) {
	o := Options{Dir: t.TempDir(), ExtraNames: []string{"2001:db8::7", "*.farm.example"}} // openssl has its own clock
	a := create(t, o)
	pair, err := a.Issue("bed-1")
	require.NoError(t, err)
	client := filepath.Join(o.Dir, "bed-1.crt")
	require.NoError(t, pair.writeFiles(client, filepath.Join(o.Dir, "bed-1.key")))

	verify := []string{"verify", "-x509_strict", "-CAfile", filepath.Join(o.Dir, "ca.crt"), "-purpose"}
	openssl(t, append(verify, "sslclient", client)...)
	server := filepath.Join(o.Dir, "server.crt")
	for _, name := range a.names() {
		match := "-verify_hostname"
		if net.ParseIP(name) != nil {
			match = "-verify_ip"
		}
		if name == "*.farm.example" {
			name = "bed.farm.example"
		}
		openssl(t, append(verify, "sslserver", match, name, server)...)
	}
	assert.Contains(t, openssl(t, "x509", "-in", filepath.Join(o.Dir, "ca.crt"), "-noout", "-fingerprint", "-sha256"), a.Fingerprint())
}

func TestOpenSSLObeysTheRevocationList(t *testing.T) {
	o := Options{Dir: t.TempDir()} // openssl has its own clock
	a := create(t, o)
	ca, list := filepath.Join(o.Dir, "ca.crt"), filepath.Join(o.Dir, "ca.crl")
	verify := func(name string) []string {
		return []string{"verify", "-x509_strict", "-crl_check", "-CAfile", ca, "-CRLfile", list, "-purpose", "sslclient", filepath.Join(o.Dir, name+".crt")}
	}
	for _, name := range []string{"bed-1", "bed-2"} {
		_, err := a.IssueFiles(name, filepath.Join(o.Dir, name+".crt"), filepath.Join(o.Dir, name+".key"))
		require.NoError(t, err)
		openssl(t, verify(name)...)
	}
	_, err := a.Revoke("bed-1")
	require.NoError(t, err)
	assert.Contains(t, openssl(t, "crl", "-in", list, "-CAfile", ca, "-noout"), "verify OK")
	openssl(t, verify("bed-2")...)
	out, err := exec.CommandContext(t.Context(), "openssl", verify("bed-1")...).CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), "certificate revoked")
}

func TestOpenSSLClientVerifiesTheServer(t *testing.T) {
	o := Options{Dir: t.TempDir()}
	a := create(t, o)
	address := echo(t, a.ServerTLS(false))
	for _, match := range [][]string{{"-verify_hostname", "localhost"}, {"-verify_ip", "127.0.0.1"}, {"-verify_ip", "::1"}, {"-tls1_2", "-verify_hostname", "127.0.0.1"}} {
		args := append([]string{"s_client", "-connect", address, "-CAfile", filepath.Join(o.Dir, "ca.crt"), "-verify_return_error", "-x509_strict"}, match...)
		assert.Contains(t, openssl(t, args...), "Verify return code: 0 (ok)", "%v", match)
	}
}
