package web

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/web/gate"
)

// CSRF: the page of a stranger makes the browser of somebody who is logged in send something.
func TestForeignPagesChangeNothing(t *testing.T) {
	done := 0
	s := open(t, nil, who, Mount{Prefix: "/api", Role: gate.Viewer, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { done++ })}).run()
	s.person("vera", gate.Viewer)
	b := s.browser()
	answer := b.login("anna", password)
	require.Equal(t, http.StatusSeeOther, answer.StatusCode)
	cookie := answer.Header.Get("Set-Cookie")
	assert.Contains(t, cookie, "; HttpOnly")
	assert.Contains(t, cookie, "; SameSite=Strict", "browsers of today do not even send it then")
	for _, foreign := range [][]string{
		{"Sec-Fetch-Site: cross-site"}, {"Sec-Fetch-Site: same-site"}, {"Origin: http://evil.example"}, {"Origin: null"},
		{"Origin: http://localhost:1", "Host: localhost"}, {"Sec-Fetch-Site: cross-site", "Origin: " + s.url("")},
	} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
			answer, _ = b.do(method, "/api/devices/bed-1", "{}", foreign...)
			assert.Equal(t, http.StatusForbidden, answer.StatusCode, "%s %s", method, foreign)
		}
		answer, _ = b.do(http.MethodPost, "/logout", "", foreign...)
		assert.Equal(t, http.StatusForbidden, answer.StatusCode, foreign)
		assert.Equal(t, http.StatusForbidden, s.browser().login("vera", password, foreign...).StatusCode, "nobody is logged in as somebody else")
	}
	assert.Zero(t, done)
	assert.Contains(t, b.who(), "anna admin session")
	answer, _ = b.do(http.MethodPost, "/api/devices/bed-1", "{}", "Sec-Fetch-Site: same-origin", "Origin: "+s.url(""))
	assert.Equal(t, http.StatusOK, answer.StatusCode)
	assert.Equal(t, 1, done)
	answer, _ = b.do(http.MethodOptions, "/api/devices/bed-1", "", "Origin: http://evil.example", "Access-Control-Request-Method: PUT")
	for name := range answer.Header {
		assert.NotContains(t, name, "Access-Control", "nobody else's page is let in")
	}
}

// DNS rebinding: a name of a stranger leads here.
func TestForeignHostsAreRefused(t *testing.T) {
	own, err := os.Hostname()
	require.NoError(t, err)
	s := open(t, func(_ *Options, g *gate.Options) {
		g.Hosts = []string{"plants.example", "*.farm.example", "192.0.2.77"}
	}, who).run()
	b := s.browser()
	for _, host := range []string{"localhost", "localhost:1234", "LOCALHOST.", "127.0.0.1", "[::1]:8080", s.Addr().String(), own, own + ".local",
		"plants.example", "Plants.Example:443", "bed.farm.example", "192.0.2.77"} {
		answer, _ := b.do(http.MethodGet, "/who", "", "Host: "+host)
		assert.Equal(t, http.StatusOK, answer.StatusCode, host)
	}
	for _, host := range []string{"evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "farm.example",
		"a.b.farm.example", "xplants.example", "192.0.2.78", "[2001:db8::1]"} {
		answer, text := b.do(http.MethodGet, "/who", "", "Host: "+host)
		assert.Equal(t, http.StatusMisdirectedRequest, answer.StatusCode, host)
		assert.Contains(t, text, "http.allowed_hosts")
	}
	assert.Contains(t, s.raw("GET /who HTTP/1.0\r\n\r\n"), " 421 ", "a request without a host")
}

// Session fixation: who is attacked logs in with a cookie that the attacker knows.
func TestASessionOfBeforeIsNotThatOfAfter(t *testing.T) {
	s := open(t, nil, who).run()
	s.person("vera", gate.Viewer)
	attacker := s.browser()
	require.Equal(t, http.StatusSeeOther, attacker.login("vera", password).StatusCode)
	planted := attacker.cookie()
	require.NotEmpty(t, planted)
	for _, cookie := range []string{planted, strings.Repeat("x", 43)} {
		victim := s.browser()
		u, err := url.Parse(s.url("/"))
		require.NoError(t, err)
		victim.Jar.SetCookies(u, []*http.Cookie{{Name: "plantops", Value: cookie}})
		require.Equal(t, http.StatusSeeOther, victim.login("anna", password).StatusCode)
		assert.NotEqual(t, cookie, victim.cookie())
		assert.Contains(t, victim.who(), "anna admin")
		assert.Contains(t, s.browser().who("Cookie: plantops="+cookie), "nobody", "what was there before is nobody's any more")
	}
	first := s.browser()
	first.login("anna", password)
	old := first.cookie()
	answer, _ := first.do(http.MethodPost, "/logout", "")
	assert.Equal(t, http.StatusSeeOther, answer.StatusCode)
	assert.Contains(t, s.browser().who("Cookie: plantops="+old), "nobody", "logged out is logged out")
	assert.Contains(t, s.browser().who("Authorization: Basic YTpi"), "nobody", "a proxy passes on what is its own")
}

// Clickjacking, and markup that a stranger got into a page.
func TestNobodyFramesThePage(t *testing.T) {
	s := open(t, nil, who, Mount{Prefix: "/fault", Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a fault") })}).run()
	b := s.browser()
	for _, request := range [][]string{{"GET", "/"}, {"GET", "/login"}, {"POST", "/login"}, {"GET", "/nothing"}, {"GET", "/who"}, {"GET", "/a//b"},
		{"GET", "/fault"}, {"GET", "/", "Host: evil.example"}} {
		answer, _ := b.do(request[0], request[1], "", request[2:]...)
		assert.Equal(t, "DENY", answer.Header.Get("X-Frame-Options"), request)
		assert.Equal(t, "nosniff", answer.Header.Get("X-Content-Type-Options"), request)
		assert.Equal(t, "no-store", answer.Header.Get("Cache-Control"), request)
		csp := answer.Header.Get("Content-Security-Policy")
		assert.Contains(t, csp, "frame-ancestors 'none'", request)
		assert.Contains(t, csp, "default-src 'none'", request)
		assert.Contains(t, csp, "script-src 'self';", request)
		assert.NotContains(t, csp, "unsafe", request)
	}
	answer, text := b.do(http.MethodGet, "/", "")
	assert.Equal(t, http.StatusOK, answer.StatusCode)
	assert.NotRegexp(t, `<script|<style|style=|\son[a-z]+=`, text, "the policy would stop it")
}

func TestPathsDoNotLeaveTheirPlace(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("the secret"), 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "files"), 0o700))
	asked := 0
	s := open(t, nil, Mount{Prefix: "/files", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++ // it trusts the path, as no handler should
		text, err := os.ReadFile(dir + r.URL.Path)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(text)
	})}).run()
	for _, path := range []string{"/files/../secret", "/files/%2e%2e/secret", "/files/..%2fsecret", "/files/%2e%2e%2fsecret", "/files/./../secret", "/../secret",
		"/files//../secret", "//files/../secret", "/files/..\\secret", "/files/%5c..%5csecret", "/files/x%00y", "/files/.", "http://127.0.0.1/files/../secret"} {
		got := s.raw("GET " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		assert.Contains(t, got, " 400 ", path)
		assert.NotContains(t, got, "the secret", path)
	}
	assert.Zero(t, asked)
	assert.Contains(t, s.raw("GET /files/nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), " 404 ")
	assert.Equal(t, 1, asked)
}

func TestLargeAndSlowBodiesAreEnded(t *testing.T) {
	read := make(chan error, 10)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		read <- err
	})
	s := open(t, func(o *Options, _ *gate.Options) { o.bodyTimeout = 50 * time.Millisecond },
		Mount{Prefix: "/api", Handler: handler}, Mount{Prefix: "/large", Handler: handler, MaxBodyBytes: 2 << 20})
	s.http.ReadHeaderTimeout = 50 * time.Millisecond
	s.run()
	const head = "POST /api/x HTTP/1.1\r\nHost: localhost\r\n"

	assert.Contains(t, s.raw(head+"Content-Length: 1048577\r\n\r\n"), " 413 ", "it is not even waited for")
	assert.Empty(t, read)
	b := s.browser()
	answer, err := b.Post(s.url("/api/x"), "text/plain", io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20)), strings.NewReader("x")))
	if err == nil { // the server closes while the client writes: either sees it first
		answer.Body.Close()
	}
	var large *http.MaxBytesError
	require.ErrorAs(t, <-read, &large, "a body of which nobody knows the length")
	answer, _ = b.do(http.MethodPost, "/large", strings.Repeat("x", 1<<20+1))
	assert.Equal(t, http.StatusOK, answer.StatusCode)
	require.NoError(t, <-read)

	s.raw(head + "Content-Length: 10\r\n\r\nx")
	require.ErrorIs(t, <-read, os.ErrDeadlineExceeded)
	s.raw(head + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
	require.ErrorIs(t, <-read, os.ErrDeadlineExceeded)
	s.raw("POST /api/x HTTP/1.1\r\nHost: evil\r\nContent-Length: 10\r\n\r\nx") // refused before anybody reads it: it ends all the same
	s.raw("POST /api/x HTTP/1.1\r\nHost: local")                               // and returns: the connection is closed
	assert.Contains(t, s.raw("GET / HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 64<<10)+"\r\n\r\n"), " 431 ")
	assert.Empty(t, read)
}

func TestAViewerIsNoAdministrator(t *testing.T) {
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	s := open(t, nil, who, Mount{Prefix: "/view", Role: gate.Viewer, Handler: ok}, Mount{Prefix: "/operate", Role: gate.Operator, Handler: ok},
		Mount{Prefix: "/admin", Role: gate.Admin, Handler: ok}).run()
	s.person("otto", gate.Operator)
	s.person("mqtt", "")
	b := s.browser()
	status := func(path string, headers ...string) int {
		answer, text := b.do(http.MethodPost, path, "", headers...)
		if answer.StatusCode != http.StatusOK {
			assert.Equal(t, "application/problem+json", answer.Header.Get("Content-Type"))
			assert.Contains(t, text, `"detail":"`)
		}
		return answer.StatusCode
	}
	for role, may := range map[gate.Role]map[string]int{
		gate.Viewer:   {"/view": 200, "/operate": 403, "/admin": 403, "/admin/a": 403},
		gate.Operator: {"/view": 200, "/operate": 200, "/admin": 403, "/admin/a": 403},
		gate.Admin:    {"/view": 200, "/operate": 200, "/admin": 200, "/admin/a": 200},
	} {
		secret, _, err := s.store.People().AddToken(t.Context(), string(role), role)
		require.NoError(t, err)
		for path, want := range may {
			assert.Equal(t, want, status(path, "Authorization: Bearer "+secret), "%s %s", role, path)
			assert.Equal(t, http.StatusUnauthorized, status(path), path)
			assert.Equal(t, http.StatusUnauthorized, status(path, "Authorization: Bearer "+secret+"x"), path)
			assert.Equal(t, http.StatusUnauthorized, status(path, "Authorization: Basic "+secret), path)
		}
		require.NoError(t, s.store.People().RemoveToken(t.Context(), string(role)))
		assert.Equal(t, http.StatusUnauthorized, status("/view", "Authorization: Bearer "+secret), "it was removed")
	}

	otto := s.browser()
	require.Equal(t, http.StatusSeeOther, otto.login("otto", password).StatusCode)
	assert.Contains(t, otto.who(), "otto operator session")
	require.NoError(t, s.store.SetWebRole(t.Context(), "otto", gate.Viewer))
	assert.Contains(t, otto.who(), "otto viewer session", "the role is that of now")
	require.NoError(t, s.store.SetWebRole(t.Context(), "otto", ""))
	assert.Contains(t, otto.who(), "nobody")

	assert.Equal(t, http.StatusForbidden, b.login("mqtt", password).StatusCode, "an account of bare rules")
	assert.Equal(t, http.StatusForbidden, b.login("bed-1", s.secret).StatusCode, "a device")
	assert.Equal(t, http.StatusUnauthorized, b.login("nobody", password).StatusCode)
	assert.Equal(t, http.StatusUnauthorized, b.login("", "").StatusCode)
	assert.Contains(t, b.who(), "nobody")

	answer, text := b.do(http.MethodPost, "/login", `{"name":"anna","password":"`+password+`"}`, "Content-Type: application/json")
	assert.Equal(t, http.StatusOK, answer.StatusCode)
	assert.JSONEq(t, `{"name":"anna","role":"admin"}`, text)
	require.NoError(t, s.store.RemoveUser(t.Context(), "anna"))
	assert.Contains(t, b.who(), "nobody")
}

// proxied makes the test's own address a proxy, so that it can ask for anybody.
func proxied(o *Options, g *gate.Options) {
	g.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
}

func from(address string) string { return "X-Forwarded-For: " + address }

func TestGuessedPasswordsAreHeldUp(t *testing.T) {
	s := open(t, proxied, who).run()
	s.person("vera", gate.Viewer)
	b := s.browser()
	require.Equal(t, http.StatusSeeOther, b.login("anna", password, from("198.51.100.1")).StatusCode, "from where she always comes")
	for i := range 10 {
		require.Equal(t, http.StatusUnauthorized, s.browser().login("anna", fmt.Sprint("guess ", i), from("203.0.113.9")).StatusCode)
	}
	answer := s.browser().login("anna", password, from("203.0.113.9"))
	assert.Equal(t, http.StatusTooManyRequests, answer.StatusCode, "not even the right one")
	assert.NotEmpty(t, answer.Header.Get("Retry-After"))
	assert.Equal(t, http.StatusTooManyRequests, s.browser().login("vera", password, from("203.0.113.9")).StatusCode, "nor another account")
	assert.Equal(t, http.StatusSeeOther, s.browser().login("vera", password, from("203.0.113.10")).StatusCode, "others are not held up")

	refused := 0
	for i := range 40 { // a botnet: each address tries once
		if s.browser().login("anna", fmt.Sprint("guess ", i), from(fmt.Sprintf("192.0.2.%d", i))).StatusCode == http.StatusTooManyRequests {
			refused++
		}
	}
	assert.GreaterOrEqual(t, refused, 20)
	assert.Equal(t, http.StatusTooManyRequests, s.browser().login("anna", password, from("192.0.2.200")).StatusCode)
	assert.Equal(t, http.StatusSeeOther, s.browser().login("anna", password, from("198.51.100.1")).StatusCode, "she is not locked out")
}

func TestStrangersCannotSayForWhomTheyAsk(t *testing.T) {
	s := open(t, nil, who).run()
	b := s.browser()
	assert.Equal(t, "nobody   127.0.0.1 ", b.who(from("203.0.113.1"), "X-Real-IP: 203.0.113.1", "Forwarded: for=203.0.113.1"))
	for i := range 10 {
		require.Equal(t, http.StatusUnauthorized, b.login("anna", "wrong", from(fmt.Sprintf("203.0.113.%d", i))).StatusCode)
	}
	assert.Equal(t, http.StatusTooManyRequests, b.login("anna", "wrong", from("203.0.113.77")).StatusCode, "it is one address all the same")
	s = open(t, nil, who).run()
	assert.NotContains(t, s.browser().login("anna", password, "X-Forwarded-Proto: https").Header.Get("Set-Cookie"), "Secure")

	s = open(t, proxied, who).run()
	b = s.browser()
	for sent, want := range map[string]string{
		"203.0.113.1": "203.0.113.1", "10.0.0.1, 203.0.113.1": "203.0.113.1", "203.0.113.1, 127.0.0.1": "203.0.113.1",
		"nonsense, 203.0.113.1": "203.0.113.1", "203.0.113.1, nonsense": "127.0.0.1", "": "127.0.0.1", "::ffff:203.0.113.1": "203.0.113.1",
	} {
		assert.Equal(t, "nobody   "+want+" "+sent, b.who(from(sent)), sent)
	}
	cookie := b.login("anna", password, "X-Forwarded-Proto: https").Header.Get("Set-Cookie")
	assert.Contains(t, cookie, "__Host-plantops=")
	assert.Contains(t, cookie, "; Secure")
}

func TestPlainToProxiesIsForProxiesOnly(t *testing.T) {
	s := open(t, func(o *Options, g *gate.Options) {
		g.ProxiesOnly = true
		g.Proxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	}, who).run()
	assert.Contains(t, s.browser().who(), "127.0.0.1", "this machine itself")
	address := other(t)
	if address == "" {
		t.Skip("this machine has no address but the loopback")
	}
	s = open(t, func(o *Options, g *gate.Options) {
		o.Address, g.ProxiesOnly = address+":0", true
		g.Proxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.128/32")}
	}, who).run()
	answer, text := s.browser().do(http.MethodGet, "/who", "", from("203.0.113.1"))
	assert.Equal(t, http.StatusForbidden, answer.StatusCode)
	assert.Contains(t, text, "http.trusted_proxies")
}

func TestLinksAreGoodOnceAndNotForLong(t *testing.T) {
	s := open(t, nil, who).run()
	s.person("vera", gate.Viewer)
	s.person("mqtt", "")
	path, until, err := s.gate.Link("")
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now().Add(5*time.Minute), until, patience)
	for _, looks := range [][]string{{http.MethodHead}, {http.MethodGet, "Sec-Purpose: prefetch"}} {
		answer, _ := s.browser().do(looks[0], path, "", looks[1:]...)
		assert.Equal(t, http.StatusNoContent, answer.StatusCode, "who only looks does not use it up")
	}
	b := s.browser()
	answer, _ := b.do(http.MethodGet, path, "")
	require.Equal(t, http.StatusSeeOther, answer.StatusCode)
	assert.Equal(t, "/", answer.Header.Get("Location"))
	assert.Contains(t, b.who(), "console admin link")
	_, text := b.do(http.MethodGet, "/", "")
	assert.Contains(t, text, "You are logged in as console (admin)")
	second := s.browser()
	answer, text = second.do(http.MethodGet, path, "")
	assert.Equal(t, http.StatusForbidden, answer.StatusCode)
	assert.Contains(t, text, "used already")
	assert.Contains(t, second.who(), "nobody")
	for _, wrong := range []string{gate.LinkPath, gate.LinkPath + "?key=", path + "x"} {
		answer, _ = second.do(http.MethodGet, wrong, "")
		assert.Equal(t, http.StatusForbidden, answer.StatusCode, wrong)
	}
	answer, _ = b.do(http.MethodPost, "/logout", "")
	require.Equal(t, http.StatusSeeOther, answer.StatusCode)
	assert.Contains(t, b.who(), "nobody")

	path, _, err = s.gate.Link("vera")
	require.NoError(t, err)
	b.do(http.MethodGet, path, "")
	assert.Contains(t, b.who(), "vera viewer session")
	for _, nobody := range []string{"mqtt", "bed-1", "stranger"} {
		_, _, err = s.gate.Link(nobody)
		assert.True(t, errors.Is(err, gate.ErrNoAccount), nobody)
	}
}
