package web

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/web/gate"
)

const (
	patience = 30 * time.Second
	password = "correct horse"
)

// site is a web listener with a database behind it. anna is an administrator, bed-1 a device.
type site struct {
	*Server
	t      *testing.T
	store  *store.Store
	gate   *gate.Gate
	secret string // of bed-1
	stop   func() error
}

type accounts struct{ store *store.Store }

func (a accounts) Authenticate(name, given string, gone <-chan struct{}) (gate.Account, bool) {
	account, right := a.store.Authenticate(name, []byte(given), store.Wait{Gone: gone})
	return gate.Account{Name: account.Name, Role: account.WebRole}, right
}

func (a accounts) Account(name string) (gate.Account, bool) {
	account, known := a.store.Account(name)
	return gate.Account{Name: account.Name, Role: account.WebRole}, known
}

func open(t *testing.T, change func(*Options, *gate.Options), mounts ...Mount) *site {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{Path: filepath.Join(t.TempDir(), "plantops.db"), Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, db.Close()) })
	secret, err := db.AddDevice(t.Context(), "bed-1")
	require.NoError(t, err)
	log := slog.New(slog.DiscardHandler)
	o := Options{Address: "127.0.0.1:0", Mounts: mounts, Log: log}
	g := gate.Options{People: db.People(), Accounts: accounts{db}, Log: log}
	if change != nil {
		change(&o, &g)
	}
	o.Gate = gate.New(g)
	server, err := New(o)
	require.NoError(t, err)
	s := &site{Server: server, t: t, store: db, gate: o.Gate, secret: secret}
	s.person("anna", gate.Admin)
	return s
}

// person makes an account; each costs a slow hash.
func (s *site) person(name string, role gate.Role) {
	s.t.Helper()
	require.NoError(s.t, s.store.AddUser(s.t.Context(), store.NewUser{Name: name, Password: password, WebRole: role, Publish: []string{"#"}}))
}

// run serves until the test ends.
func (s *site) run() *site {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	s.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			return context.DeadlineExceeded
		}
	})
	s.t.Cleanup(func() { assert.NoError(s.t, s.stop()) })
	return s
}

func (s *site) url(path string) string { return "http://" + s.Addr().String() + path }

// browser keeps cookies, and follows no redirects.
type browser struct {
	s *site
	*http.Client
}

func (s *site) browser() browser {
	jar, err := cookiejar.New(nil)
	require.NoError(s.t, err)
	c := &http.Client{Jar: jar, Timeout: patience, Transport: &http.Transport{},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	s.t.Cleanup(c.CloseIdleConnections)
	return browser{s, c}
}

// do sends a request with headers, "Name: value" each, and returns the answer with its body.
func (b browser) do(method, path, body string, headers ...string) (*http.Response, string) {
	b.s.t.Helper()
	r, err := http.NewRequest(method, b.s.url(path), strings.NewReader(body))
	require.NoError(b.s.t, err)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
		if name == "Host" {
			r.Host = value
		}
	}
	answer, err := b.Do(r)
	require.NoError(b.s.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(b.s.t, err)
	return answer, string(text)
}

func (b browser) login(name, given string, headers ...string) *http.Response {
	b.s.t.Helper()
	answer, _ := b.do(http.MethodPost, "/login", url.Values{"name": {name}, "password": {given}}.Encode(),
		append(headers, "Content-Type: application/x-www-form-urlencoded")...)
	return answer
}

// cookie is the one that the browser sends.
func (b browser) cookie() string {
	u, err := url.Parse(b.s.url("/"))
	require.NoError(b.s.t, err)
	for _, c := range b.Jar.Cookies(u) {
		return c.Value
	}
	return ""
}

// who is what a handler is told of who asks.
var who = Mount{Prefix: "/who", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	p, known := gate.Of(r.Context())
	if !known {
		p.Name = "nobody"
	}
	_, _ = io.WriteString(w, p.Name+" "+string(p.Role)+" "+p.Via+" "+gate.Client(r.Context()).String()+" "+r.Header.Get("X-Forwarded-For"))
})}

func (b browser) who(headers ...string) string {
	b.s.t.Helper()
	answer, text := b.do(http.MethodGet, "/who", "", headers...)
	require.Equal(b.s.t, http.StatusOK, answer.StatusCode, text)
	return text
}

// raw sends bytes and returns what comes until the server closes.
func (s *site) raw(sent string) string {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.Addr().String())
	require.NoError(s.t, err)
	defer conn.Close()
	require.NoError(s.t, conn.SetDeadline(time.Now().Add(patience)))
	_, _ = io.WriteString(conn, sent) // it may have seen enough before the end
	var got bytes.Buffer
	if _, err = io.Copy(&got, conn); !errors.Is(err, syscall.ECONNRESET) { // it was closed with something unread
		require.NoError(s.t, err)
	}
	return got.String()
}
