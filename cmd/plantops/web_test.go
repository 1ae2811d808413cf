package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/store"
)

// Where others can reach the page it is served with the certificates of the devices' listener, by HTTP/2.
func TestThePageIsEncryptedBeyondTheLoopback(t *testing.T) {
	r := newServer(t, t.TempDir(), &app{now: time.Now}, "PLANTOPS_HTTP_ADDRESS=0.0.0.0:0")
	r.start(t)
	_, port, err := net.SplitHostPort(r.page.Addr().String())
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(r.authority.RootPEM()))
	client := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	answer, err := client.Get("https://localhost:" + port + "/ca.crt")
	require.NoError(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	assert.Equal(t, 2, answer.ProtoMajor)
	assert.Equal(t, r.authority.RootPEM(), text)
	link, err := r.page.Link("")
	require.NoError(t, err)
	answer, err = client.Transport.RoundTrip(must(t, "https://localhost:"+port+link.Path))
	require.NoError(t, err)
	defer answer.Body.Close()
	assert.Contains(t, answer.Header.Get("Set-Cookie"), "__Host-plantops=")
	assert.Contains(t, answer.Header.Get("Set-Cookie"), "; Secure")

	plain, err := http.Get("http://localhost:" + port + "/")
	require.NoError(t, err)
	defer plain.Body.Close()
	assert.Equal(t, http.StatusBadRequest, plain.StatusCode, "nothing is served in plain text")
}

func must(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, nil)
	require.NoError(t, err)
	return r
}

// Who upgrades has chosen no port for the page: readings are stored all the same when another program has it.
func TestAPortThatNobodyChoseDoesNotEndTheStart(t *testing.T) {
	if taken, err := net.Listen("tcp", config.Default().HTTP.Address); err == nil { // if not, another program has it
		defer taken.Close()
	}
	db, err := store.Open(t.Context(), store.Options{Path: t.TempDir() + "/plantops.db", Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer db.Close()
	listen := func(environ ...string) (*page, string, error) {
		loaded, err := config.Load("", environ, nil)
		require.NoError(t, err)
		var said bytes.Buffer
		p, err := listenWeb(wiring{loaded: loaded, store: db, now: time.Now, log: slog.New(slog.NewTextHandler(&said, nil))})
		return p, said.String(), err
	}
	p, said, err := listen()
	require.NoError(t, err)
	assert.Nil(t, p)
	assert.Contains(t, said, "the web page is not served")
	assert.Contains(t, said, "http.address")
	_, _, err = listen("PLANTOPS_HTTP_ADDRESS=" + config.Default().HTTP.Address)
	require.ErrorContains(t, err, "address already in use")
	p, _, err = listen("PLANTOPS_HTTP_ADDRESS=off")
	require.NoError(t, err)
	assert.Nil(t, p)
}

// Orders to the page reach it through the control socket, and devices register at the second listener.
func TestPairingOpensTheListenerForOldFirmware(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := free.Addr().String()
	require.NoError(t, free.Close())
	r := newServer(t, t.TempDir(), &app{now: time.Now}, "PLANTOPS_HTTP_REGISTRATION_ADDRESS="+address)
	r.start(t)
	_, err = http.Post("http://"+address+"/api/devices/register", "application/json", strings.NewReader("{}"))
	require.Error(t, err)
	window, err := r.control.Pair(t.Context(), time.Minute)
	require.NoError(t, err)
	assert.Equal(t, address, window.Registration)
	answer, err := http.Post("http://"+address+"/api/devices/register", "application/json", strings.NewReader("{}"))
	require.NoError(t, err)
	answer.Body.Close()
	answer, err = http.Post("http://"+address+"/login", "application/json", strings.NewReader("{}"))
	require.NoError(t, err)
	answer.Body.Close()
	assert.Equal(t, http.StatusNotFound, answer.StatusCode)
	require.NoError(t, r.stop())
	_, err = http.Post("http://"+address+"/api/devices/register", "application/json", strings.NewReader("{}"))
	require.Error(t, err)
}
